//! Parsing the lines of passwd(5) and group(5). Pure: no file is read here.

/// A user.
#[derive(Clone, Copy, Debug)]
pub struct User<'a> {
    /// Login name.
    pub name: &'a [u8],
    /// User id; `None` if the field is not an id.
    pub uid: Option<u32>,
    /// Id of the user's primary group; `None` if the field is not an id.
    pub gid: Option<u32>,
    /// The field of the primary group, as it is.
    pub group: &'a [u8],
    /// Home directory.
    pub home: &'a [u8],
    /// Login shell.
    pub shell: &'a [u8],
}

/// A group.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Group id; `None` if the field is not an id.
    pub gid: Option<u32>,
    members: &'a [u8],
}

impl Group<'_> {
    /// Whether a user is in the group's list of members. Users with it as their primary group need not be in that list.
    pub fn has(&self, user: &[u8]) -> bool {
        self.members.split(|&b| b == b',').any(|member| member == user)
    }
}

/// The users in the text of a passwd(5) file. Lines that do not describe a user are left out.
pub fn users(file: &[u8]) -> impl Iterator<Item = User<'_>> {
    file.split(|&b| b == b'\n').filter_map(|line| {
        let (name, mut fields) = fields(line)?;
        let (uid, group, _gecos) = (fields.next()?, fields.next()?, fields.next()?);
        let (home, shell) = (fields.next()?, fields.next().unwrap_or_default());
        Some(User { name, uid: id(uid), gid: id(group), group, home, shell })
    })
}

/// The groups in the text of a group(5) file. Lines that do not describe a group are left out.
pub fn groups(file: &[u8]) -> impl Iterator<Item = Group<'_>> {
    file.split(|&b| b == b'\n').filter_map(|line| {
        let (name, mut fields) = fields(line)?;
        Some(Group { name, gid: id(fields.next()?), members: fields.next().unwrap_or_default() })
    })
}

/// The GIDs of the groups in the text of a group(5) file that list a user as their member, without the user's own group;
/// in ascending order, each once.
pub fn memberships(file: &[u8], user: &[u8], own: u32) -> Vec<u32> {
    let listing = groups(file).filter(|group| group.has(user)).filter_map(|group| group.gid);
    let mut gids: Vec<u32> = listing.filter(|gid| *gid != own).collect();
    gids.sort_unstable();
    gids.dedup();
    gids
}

/// The name at the beginning of a line, and the fields after the password.
fn fields(line: &[u8]) -> Option<(&[u8], impl Iterator<Item = &[u8]>)> {
    let mut fields = line.split(|&b| b == b':');
    let name = fields.next().filter(|name| !name.is_empty() && name[0] != b'#')?;
    fields.next()?;
    Some((name, fields))
}

/// Parses digits as an id. 2^32 - 1 is refused, because it means "no change" to the kernel.
pub fn id(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|&id| id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_not_of_a_user_or_group_are_left_out() {
        let file = b"root:x:0:0:root:/root:/bin/sh\n#a:x:1:1::/:\nbroken\n:x:1:1::/:\nodd:x:7:::/:\nbare:x:9:9::/";
        let found: Vec<_> = users(file).map(|user| (user.name, user.uid, user.gid)).collect();
        assert_eq!(found, [(&b"root"[..], Some(0), Some(0)), (b"odd", Some(7), None), (b"bare", Some(9), Some(9))]);
        let file = b"www:x:34:web,log\nbad:x:-1:\nnone:x:40\n#c:x:1:web";
        let found: Vec<_> = groups(file).map(|group| (group.name, group.gid, group.has(b"web"))).collect();
        assert_eq!(found, [(&b"www"[..], Some(34), true), (b"bad", None, false), (b"none", Some(40), false)]);
        let file = b"b:x:9:web\na:x:8:log,web\nown:x:7:web\nagain:x:9:web\nother:x:5:log\nbad:x:-1:web";
        assert_eq!((memberships(file, b"web", 7), memberships(file, b"we", 7)), (vec![8, 9], Vec::new()));
        assert_eq!((id(b"4294967295"), id(b"+1"), id(b"007")), (None, None, Some(7)));
    }
}
