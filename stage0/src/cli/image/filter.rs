//! Filters of `podctl image list`: `--filter KEY=VALUE`

use stage1::appc::{NameValue, parse_bool};
use stage1::error::{Context, Error, Result};

use crate::image::store::Image;
use crate::image::store::find;
use crate::store::Store;

/// A condition for images.
#[derive(Debug)]
pub enum Filter {
    /// One of the image's names matches this pattern.
    Reference(String),
    /// The image has this label or annotation, with this value if one is given.
    Label(String, Option<String>),
    /// The image has no name (`true`), or has one (`false`).
    Dangling(bool),
    /// The image's id starts with this.
    Id(String),
    /// The image was imported before this time, in nanoseconds since 1970.
    Before(i64),
    /// The image was imported after this time, in nanoseconds since 1970.
    Since(i64),
}

impl Filter {
    /// Parses `reference=PATTERN`, `label=NAME[=VALUE]`, `dangling=BOOL`, `id=START`, `before=IMAGE`, `since=IMAGE`.
    ///
    /// # Errors
    /// The text is not one of these filters, or its image is not in the store.
    pub fn parse(store: &Store, text: &str) -> Result<Self> {
        let shown = || format!("filter {text:?}");
        let (key, value) = text.split_once('=').context(|| format!("{}: expected KEY=VALUE", shown()))?;
        let import_time = || Ok::<i64, Error>(find::find(store, value).context(shown)?.info.import_time);
        Ok(match key {
            "reference" => Self::Reference(value.to_owned()),
            "label" => match value.split_once('=') {
                Some((name, value)) => Self::Label(name.to_owned(), Some(value.to_owned())),
                None => Self::Label(value.to_owned(), None),
            },
            "dangling" => Self::Dangling(parse_bool(value).context(|| format!("{}: expected true or false", shown()))?),
            "id" => Self::Id(value.to_owned()),
            "before" => Self::Before(import_time()?),
            "since" => Self::Since(import_time()?),
            _ => {
                return Err(Error::new(format!(
                    "{}: expected reference, label, dangling, id, before or since",
                    shown()
                )));
            }
        })
    }

    /// Whether an image with these names meets the condition.
    pub fn fits(&self, image: &Image, names: &[String]) -> bool {
        match self {
            Self::Reference(pattern) => names.iter().any(|name| {
                // the pattern may also match a name without its tag, registry or path
                let untagged =
                    name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name.as_str(), |n| n.0);
                [name.as_str(), untagged].iter().any(|name| {
                    matches(pattern, name) || name.match_indices('/').any(|(at, _)| matches(pattern, &name[at + 1..]))
                })
            }),
            Self::Label(name, value) => {
                let has = |one: &NameValue| one.name == *name && value.as_ref().is_none_or(|value| one.value == *value);
                image.parsed.labels.iter().chain(&image.parsed.annotations).any(has)
            }
            Self::Dangling(dangling) => names.is_empty() == *dangling,
            Self::Id(start) => image.id.digits().starts_with(start) || image.id.to_string().starts_with(start),
            Self::Before(time) => image.info.import_time < *time,
            Self::Since(time) => image.info.import_time > *time,
        }
    }
}

/// Whether a text matches a pattern, in which `*` matches any text and `?` one character.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("busybox", "busybox", true),
            ("busy*", "busybox:1", true),
            ("*box", "busybox:1", false),
            ("b?sy*:*", "busybox:1", true),
            ("a*b*c", "aXXbYYbc", true),
            ("a*b*c", "aXXcYY", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
