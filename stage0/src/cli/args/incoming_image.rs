//! What is taken of an image that comes in: the options of `podctl image import` and `podctl image pull`

use clap::Args;

use crate::image::archive::UnpackLimits;

/// What is taken of an image that comes in.
#[derive(Args, Clone, Debug)]
pub struct IncomingImage {
    /// Take the image for this platform, of several; this machine's if not given
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    pub platform: Option<String>,
    /// Take device nodes other than null, zero, full, random, urandom, tty and ptmx, too
    #[arg(long)]
    devices: bool,
    /// Refuse an image that has more bytes than this, uncompressed or as a registry sends it
    #[arg(long, value_name = "BYTES", default_value_t = UnpackLimits::default().bytes)]
    max_size: u64,
}

impl IncomingImage {
    /// What its archive may hold.
    pub fn limits(&self) -> UnpackLimits {
        UnpackLimits { bytes: self.max_size, devices: self.devices, ..UnpackLimits::default() }
    }
}
