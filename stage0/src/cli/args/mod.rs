//! Options that several verbs share, and parsing their values.

pub mod app_path;
pub mod bind;
pub mod candidates;
pub mod dns;
pub mod duration;
pub mod each;
pub mod extras;
pub mod health;
pub mod hostname;
pub mod incoming_image;
pub mod insecure;
pub mod kube_file;
pub mod label;
pub mod lazy;
pub mod limits;
pub mod listing;
pub mod new_app;
pub mod new_pod;
pub mod one_app;
pub mod patience;
pub mod pod;
pub mod publish;
pub mod registry;
pub mod time;
pub mod variable;
pub mod volume;
