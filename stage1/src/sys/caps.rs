//! Capabilities of this process: capabilities(7), through the crate `caps`. In a set of type `u64` bit N is the
//! capability with the number N.

use caps::{CapSet, Capability, CapsHashSet};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::error::{Context, Error, Result};

/// The first capability number that the crate `caps` does not know.
const FIRST_UNNAMED: u32 = Capability::CAP_CHECKPOINT_RESTORE as u32 + 1;

/// Drops every capability that is not in `keep` from the bounding set, also those that the kernel has and the crate
/// `caps` does not know.
///
/// # Errors
/// A capability is to be dropped, and this process lacks CAP_SETPCAP.
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

/// Removes every capability that is not in `keep` from the permitted set, makes the effective set equal to it, and
/// empties the inheritable set; with that the kernel empties the ambient set too. Capabilities that the crate `caps`
/// does not know are always removed.
///
/// # Errors
/// The sets can't be read or set: capget(2), capset(2).
pub fn lower_to(keep: u64) -> Result<()> {
    let mut kept = caps::read(None, CapSet::Permitted).context(|| "read the permitted set")?;
    kept.retain(|capability| keep & capability.bitmask() != 0);
    inherit_none()?;
    // Effective first: the kernel refuses an effective capability that is not permitted.
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &kept).context(|| format!("set {set:?} capabilities to {kept:?}"))?;
    }
    Ok(())
}

/// Empties the inheritable set, and with it the ambient set.
///
/// # Errors
/// capset(2) fails.
pub fn inherit_none() -> Result<()> {
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).context(|| "empty the inheritable set")
}

/// Sets the inheritable and the ambient set to `ambient`, a subset of the permitted set.
///
/// # Errors
/// A capability is not permitted, or not known to the crate `caps`; or the sets can't be read or set.
pub fn set_ambient(ambient: u64) -> Result<()> {
    if ambient == 0 {
        return inherit_none();
    }
    let mut wanted = caps::read(None, CapSet::Permitted).context(|| "read the permitted set")?;
    wanted.retain(|capability| ambient & capability.bitmask() != 0);
    let bits = wanted.iter().fold(0, |bits, capability| bits | capability.bitmask());
    if bits != ambient {
        return Err(Error::new(format!("ambient capabilities: {:#x} are not permitted", ambient & !bits)));
    }
    for set in [CapSet::Inheritable, CapSet::Ambient] {
        caps::set(None, set, &wanted).context(|| format!("set {set:?} capabilities to {wanted:?}"))?;
    }
    Ok(())
}

/// Makes this thread create files as `uid` and `gid` of the host from now on: setfsuid(2). It keeps all its
/// capabilities. Needed for id-mapped mounts, which refuse new files of users that they do not map.
///
/// # Errors
/// The capabilities can't be read or set.
pub fn make_files_as(uid: u32, gid: u32) -> Result<()> {
    nix::unistd::setfsgid(gid.into());
    nix::unistd::setfsuid(uid.into());
    // The change from uid 0 cleared the effective capabilities that apply to files.
    let permitted = caps::read(None, CapSet::Permitted).context(|| "read the permitted capabilities")?;
    caps::set(None, CapSet::Effective, &permitted).context(|| "set the effective capabilities")
}
