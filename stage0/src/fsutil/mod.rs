//! Files and directories of the host, one function per job. This module does not know images or pods.

pub(crate) mod atomic;
pub mod digest;
pub(crate) mod dir;
pub(crate) mod inotify;
pub(crate) mod lock;
pub(crate) mod named_file;
pub(crate) mod plain_word;
pub(crate) mod remove;
pub(crate) mod space;
pub mod time;
