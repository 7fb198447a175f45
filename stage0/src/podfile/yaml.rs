//! The YAML documents of a file as values, with bounds: a small file can't take much time or memory.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};
use serde_yaml_ng::{Mapping, Value};
use stage1::error::{Context, Error, Result};

/// The deepest nesting that the parser accepts.
const DEEPEST: usize = 128;
/// How many brackets a file may have that are nested deeper than [`DEEPEST`] in their line. Each costs the parser much
/// time before it refuses the file; a text in a ConfigMap may have some.
const TOO_DEEP: usize = 4096;
/// The size limit of a document with its aliases replaced by what they stand for, in bytes; each value counts [`NODE`]
/// bytes more than its text has.
const LARGEST: usize = 64 << 20;
/// The size of a value without its text, in bytes.
const NODE: usize = 64;

/// The documents of a file in order, without empty ones, each with its number from 1. Merge keys (`<<`) are applied.
///
/// # Errors
/// The text is not YAML, is nested too deeply, has a key twice in one mapping or a tag of its own, or becomes too large
/// by its aliases. The message has the number of the document.
fn documents(text: &str) -> Result<Vec<(usize, Value)>> {
    // a byte order mark, as some editors write it
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    check_nesting(text)?;
    let mut found = Vec::new();
    for (number, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let shown = || format!("document {}", number + 1);
        let left = Cell::new(LARGEST);
        let read = Node(&left).deserialize(document).and_then(|mut value| value.apply_merge().map(|()| value));
        let value = read.map_err(|error| not_yaml(text, &error)).context(shown)?;
        if !value.is_null() {
            found.push((number + 1, value));
        }
    }
    Ok(found)
}

/// The objects of Kubernetes in a file: its documents, with the items of a `List` in place of the list.
///
/// # Errors
/// As [`documents`].
pub fn objects(text: &str) -> Result<Vec<(usize, Value)>> {
    let mut open: Vec<(usize, Value)> = documents(text)?.into_iter().rev().collect();
    let mut found = Vec::new();
    while let Some((number, mut value)) = open.pop() {
        if value.get("kind").and_then(Value::as_str) == Some("List") {
            let items = value.get_mut("items").and_then(Value::as_sequence_mut).map(std::mem::take);
            open.extend(items.unwrap_or_default().into_iter().rev().map(|item| (number, item)));
        } else {
            found.push((number, value));
        }
    }
    Ok(found)
}

fn not_yaml(text: &str, error: &serde_yaml_ng::Error) -> Error {
    let said = error.to_string().replace('\n', " ");
    let line = error.location().and_then(|at| text.lines().nth(at.line().saturating_sub(1)));
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let has_tab = line.is_some_and(|line| line[..indentation(line)].contains('\t'));
    let hint = if has_tab { "; YAML is indented by spaces, and this line by a tab" } else { "" };
    Error::new(format!("not YAML: {said}{hint}"))
}

/// Refuses brackets nested so deeply in one line that the parser would take long.
fn check_nesting(text: &str) -> Result<()> {
    let mut too_deep = 0;
    for (number, line) in text.lines().enumerate() {
        let mut depth = 0_usize;
        for byte in line.bytes() {
            match byte {
                b'[' | b'{' => {
                    depth += 1;
                    too_deep += usize::from(depth > DEEPEST);
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        if too_deep > TOO_DEEP {
            return Err(Error::new(format!(
                "line {}: brackets are nested deeper than {DEEPEST}, which no pod needs",
                number + 1
            )));
        }
    }
    Ok(())
}

/// Reads one value; takes its size from what is left.
#[derive(Clone, Copy)]
struct Node<'a>(&'a Cell<usize>);

impl Node<'_> {
    fn take<E: de::Error>(self, text: usize) -> std::result::Result<(), E> {
        let left = self.0.get().checked_sub(NODE + text);
        self.0.set(left.ok_or_else(|| {
            E::custom(format!("it needs more than {} MiB, its aliases replaced by what they stand for", LARGEST >> 20))
        })?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> std::result::Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> std::result::Result<Value, E> {
        self.take(0).map(|()| value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> std::result::Result<Value, E> {
        self.take(0).map(|()| value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<Value, E> {
        self.take(0).map(|()| value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> std::result::Result<Value, E> {
        self.take(0).map(|()| value.into())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> std::result::Result<Value, E> {
        self.take(value.len()).map(|()| value.into())
    }

    fn visit_unit<E: de::Error>(self) -> std::result::Result<Value, E> {
        self.take(0).map(|()| Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> std::result::Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> std::result::Result<Value, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Value, A::Error> {
        self.take(0)?;
        let mut found = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            found.push(item);
        }
        Ok(found.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Value, A::Error> {
        self.take(0)?;
        let mut found = Mapping::new();
        while let Some(key) = entries.next_key_seed(self)? {
            let value = entries.next_value_seed(self)?;
            if found.contains_key(&key) {
                let shown = key.as_str().map_or_else(|| "of a mapping".to_owned(), |key| format!("{key:?}"));
                return Err(de::Error::custom(format!("the key {shown} is there twice")));
            }
            found.insert(key, value);
        }
        Ok(Value::Mapping(found))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> std::result::Result<Value, A::Error> {
        let (tag, _) = tagged.variant::<String>()?;
        Err(de::Error::custom(format!("the tag !{} is not supported", tag.trim_start_matches('!'))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let line = documents(text).unwrap_err().one_line();
        assert!(!line.contains('\n'), "{line}");
        line
    }

    #[test]
    fn documents_as_editors_write_them() {
        let of = |text: &str| documents(text).unwrap();
        assert!(of("").is_empty());
        assert!(of("# nothing\n---\n# here\n---\n\n...\n").is_empty());
        let found = of("# first\n---\na: 1\n---\n---\n[x, null, true, -2, 1.5]\n");
        assert_eq!(found.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(found[1].1, serde_yaml_ng::from_str::<Value>("[x, null, true, -2, 1.5]").unwrap());
        assert_eq!(of("\u{feff}a: 1\r\nb:\r\n- 2\r\n"), of("a: 1\nb: [2]"));
        assert_eq!(of("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}"), of("x: {a: 1, b: 2}\ny: {a: 1, b: 3}"));
        assert_eq!(of("t: !!str 1"), of("t: '1'"));
    }

    #[test]
    fn what_is_not_clear_is_refused_with_its_place() {
        for (text, why) in [
            ("a: [", "document 1: not YAML: "),
            ("a: 1\n---\nb: {c: 1, c: 2}", "document 2: not YAML: b: the key \"c\" is there twice"),
            ("a:\n\tb: 1", "this line by a tab"),
            ("a: !secret x", "the tag !secret is not supported"),
            ("a: *none", "unknown anchor"),
        ] {
            let line = refused(text);
            assert!(line.contains(why), "{why}: {line}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_before_it_costs_time() {
        // without the check, the parser takes longer than a minute for it
        let line = refused(&format!("a: b\nc: {}", "[".repeat(4 << 20)));
        assert!(line.contains("line 2: brackets are nested deeper than 128"), "{line}");
        assert!(refused(&"{a: ".repeat(1000)).contains("not YAML"));
        assert!(refused(&"- ".repeat(5000)).contains("recursion limit"));
        // a text may have such brackets
        assert_eq!(documents(&format!("a: \"{}\"", "[".repeat(1000))).unwrap().len(), 1);
        assert_eq!(documents(&"[a]: 1\n---\n".repeat(1000)).unwrap().len(), 1000);
    }

    #[test]
    fn aliases_do_not_multiply_without_limit() {
        let many = |item: &str, count: usize| vec![item; count].join(",");
        let laughs = (1..10).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
            let item = format!("*a{}", level - 1);
            format!("{text}a{level}: &a{level} [{}]\n", many(&item, 10))
        });
        let flat = format!("a: &a [{}]\nb: [{}]\n", many("x", 20_000), many("*a", 20_000));
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), many("*a", 1000));
        for text in [laughs, flat, text] {
            let line = refused(&text);
            assert!(line.contains("more than 64 MiB") || line.contains("repetition limit"), "{line}");
        }
    }
}
