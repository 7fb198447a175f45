//! The groups of an app's user in the `/etc/passwd` and `/etc/group` of its image.

use serde::{Deserialize, Serialize};
use stage1::appc::RuntimeApp;
use stage1::error::{Context, Result};

use crate::image::oci::account::Account;
use crate::image::overlay_lookup::Merged;
use crate::image::store::Image;
use crate::image::tree::{self as trees, location};
use crate::store::Store;

/// The groups of the image's files that an app gets.
#[derive(Serialize, Deserialize, clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ImageGroups {
    /// The user's group in /etc/passwd, unless --group gives another one
    Primary,
    /// That group, and those whose entry in /etc/group lists the user
    All,
}

/// An app's options for its groups.
#[derive(Clone, Copy, Debug)]
pub struct GroupRequest<'a> {
    /// The groups of the image's files to add.
    pub which: ImageGroups,
    /// Whether the app's group is known: an option gives it, or the app has the image's user and group.
    pub has_group: bool,
    /// The GIDs of further groups.
    pub further: &'a [u32],
}

/// Sets an app's group, if the request lacks it, and its supplementary groups: the app's group, the further groups of
/// the request, and those of the image's files. A user that is a path has the group of that path.
///
/// # Errors
/// The image's tree can't be made, or the image's files can't be read.
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
