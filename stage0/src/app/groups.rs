//! The groups that an image's own files give the user of an app.

use serde::{Deserialize, Serialize};
use stage1::appc::RuntimeApp;
use stage1::error::{Context, Result};

use crate::image::oci::account::Account;
use crate::image::overlay_lookup::Merged;
use crate::image::store::Image;
use crate::image::tree::{self as trees, location};
use crate::store::Store;

/// Which groups of the image's files an app has.
#[derive(Serialize, Deserialize, clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ImageGroups {
    /// The group of /etc/passwd, if no other one is given
    Primary,
    /// That one, and those in which /etc/group lists the user
    All,
}

/// What an app's options say of its groups.
#[derive(Clone, Copy, Debug)]
pub struct GroupRequest<'a> {
    /// Those of the image's files that are added.
    pub which: ImageGroups,
    /// Its own group is said, or the image's own where its user is.
    pub has_group: bool,
    /// Further groups.
    pub further: &'a [u32],
}

/// Gives an app the groups that its options ask for, besides those that they name. Its own group is among them.
///
/// # Errors
/// The image's files can't be read.
pub fn give(store: &Store, image: &Image, request: Option<GroupRequest<'_>>, app: &mut RuntimeApp) -> Result<()> {
    let (Some(request), Some(section)) = (request, app.app.as_mut()) else { return Ok(()) };
    let tree = trees::ensure(store, &image.id)?;
    let roots = location::stack(store, tree.id())?;
    let files = Merged::open(roots.iter().map(std::path::PathBuf::as_path))?;
    let account = Account::of(&section.user, &files).context(|| format!("groups of user {:?}", section.user))?;
    if !request.has_group {
        section.group = account.group;
    }
    let others = if request.which == ImageGroups::All { account.others } else { Vec::new() };
    let mut gids: Vec<u32> = section.group.parse().into_iter().collect();
    for gid in request.further.iter().chain(&others) {
        if !gids.contains(gid) {
            gids.push(*gid);
        }
    }
    section.supplementary_gids = gids;
    Ok(())
}
