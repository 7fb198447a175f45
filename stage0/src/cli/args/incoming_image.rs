//! The options that `podctl image import` and `podctl image pull` share

use clap::Args;

use crate::image::archive::UnpackLimits;

/// The options of an import.
#[derive(Args, Clone, Debug)]
pub struct IncomingImage {
    /// Choose the image for this platform (default: this machine's)
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    pub platform: Option<String>,
    /// Accept device nodes other than null, zero, full, random, urandom, tty and ptmx
    #[arg(long)]
    devices: bool,
    /// Refuse an image that has more bytes than this, uncompressed or as a registry sends it
    #[arg(long, value_name = "BYTES", default_value_t = UnpackLimits::default().bytes)]
    max_size: u64,
}

impl IncomingImage {
    /// The limits for its archive.
    pub fn limits(&self) -> UnpackLimits {
        UnpackLimits { bytes: self.max_size, devices: self.devices, ..UnpackLimits::default() }
    }
}
