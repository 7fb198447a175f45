//! Capabilities of this process: capabilities(7), by the crate `caps`. A set is one bit a number, as the kernel keeps it.

use caps::{CapSet, Capability, CapsHashSet};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::error::{Context, Result};

/// The first number that `caps` has no name for.
const FIRST_UNNAMED: u32 = Capability::CAP_CHECKPOINT_RESTORE as u32 + 1;

/// Drops from the bounding set what is not in `keep`, of all capabilities that this kernel has: those of a later kernel
/// than `caps` was made for among them.
///
/// # Errors
/// There is something to drop, and this process has no CAP_SETPCAP.
pub fn limit_bounding_set(keep: u64) -> Result<()> {
    let have = caps::read(None, CapSet::Bounding).context(|| "read the bounding set")?;
    for lost in have.into_iter().filter(|capability| keep & capability.bitmask() == 0) {
        caps::drop(None, CapSet::Bounding, lost).context(|| format!("drop {lost} from the bounding set"))?;
    }
    for number in FIRST_UNNAMED..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::capability_is_in_bounding_set(one) {
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno).context(|| format!("prctl(PR_CAPBSET_READ, {number})")),
            Ok(true) if keep & 1 << number == 0 => {
                rustix::thread::remove_capability_from_bounding_set(one)
                    .context(|| format!("prctl(PR_CAPBSET_DROP, {number})"))?;
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Lowers effective and permitted set to what of them is in `keep`, and empties the inheritable one; with that the
/// kernel empties the ambient set too. What `caps` has no name for goes in any case.
///
/// # Errors
/// The kernel refuses it.
pub fn lower_to(keep: u64) -> Result<()> {
    let mut kept = caps::read(None, CapSet::Permitted).context(|| "read the permitted set")?;
    kept.retain(|capability| keep & capability.bitmask() != 0);
    inherit_none()?;
    // Effective first: it is never more than permitted.
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).context(|| format!("set {set:?} capabilities to {kept:?}"))?;
    }
    Ok(())
}

/// Empties the inheritable and the ambient set.
///
/// # Errors
/// The kernel refuses it.
pub fn inherit_none() -> Result<()> {
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).context(|| "empty the inheritable set")
}

/// From now on this thread makes files as `uid` and `gid` of the host, and keeps all its capabilities for that:
/// setfsuid(2). An id-mapped mount takes new files of those users only that it maps.
///
/// # Errors
/// The capabilities can't be set.
pub fn make_files_as(uid: u32, gid: u32) -> Result<()> {
    nix::unistd::setfsgid(gid.into());
    nix::unistd::setfsuid(uid.into());
    // those that act on files went with the change from root
    let permitted = caps::read(None, CapSet::Permitted).context(|| "read the permitted capabilities")?;
    caps::set(None, CapSet::Effective, &permitted).context(|| "set the effective capabilities")
}
