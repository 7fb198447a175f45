//! Keys that are not for the program inside: when they are typed one after the other, the caller detaches.

use std::collections::VecDeque;

use crate::error::{Error, Result};

/// The most keys of a sequence.
const MAX: usize = 16;

/// A sequence of keys to detach with; an empty one is never typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys {
    sequence: Vec<u8>,
    /// How many of them were just typed, and are held back.
    typed: usize,
}

impl Default for DetachKeys {
    /// ctrl-p, ctrl-q.
    fn default() -> Self {
        Self { sequence: vec![0x10, 0x11], typed: 0 }
    }
}

impl std::str::FromStr for DetachKeys {
    type Err = Error;

    /// Parses `KEY,KEY,…`; a key is a character of ASCII, or `ctrl-` and a letter or one of `@ [ \ ] ^ _`.
    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self { sequence: Vec::new(), typed: 0 });
        }
        let sequence = text.split(',').map(key).collect::<Option<Vec<u8>>>().filter(|keys| keys.len() <= MAX);
        match sequence {
            Some(sequence) => Ok(Self { sequence, typed: 0 }),
            None => Err(Error::new(format!(
                "detach keys {text:?}: use single characters and ctrl-LETTER, joined by commas, such as ctrl-p,ctrl-q"
            ))),
        }
    }
}

fn key(word: &str) -> Option<u8> {
    let (word, control) = match word.strip_prefix("ctrl-") {
        Some(rest) => (rest, true),
        None => (word, false),
    };
    let [byte] = *word.as_bytes() else { return None };
    match byte {
        _ if !control => (byte.is_ascii_graphic() || byte == b' ').then_some(byte),
        b'a'..=b'z' => Some(byte - b'a' + 1),
        b'@' | b'['..=b'_' => Some(byte - b'@'),
        _ => None,
    }
}

impl DetachKeys {
    /// Takes what was typed, and hands on to `out` what is for the program. Whether the sequence is complete; what
    /// comes after it is nobody's.
    pub(super) fn take(&mut self, typed: &[u8], out: &mut VecDeque<u8>) -> bool {
        if self.sequence.is_empty() {
            out.extend(typed);
            return false;
        }
        for byte in typed {
            // A byte that does not go on with the sequence may be the end of a shorter beginning of it.
            while self.typed > 0 && self.sequence[self.typed] != *byte {
                let held = &self.sequence[..self.typed];
                let shorter = (1..=self.typed).find(|from| self.sequence.starts_with(&held[*from..]));
                let dropped = shorter.unwrap_or(self.typed);
                out.extend(&held[..dropped]);
                self.typed -= dropped;
            }
            if self.sequence[self.typed] == *byte {
                self.typed += 1;
            } else {
                out.push_back(*byte);
            }
            if self.typed == self.sequence.len() {
                self.typed = 0;
                return true;
            }
        }
        false
    }

    /// What is held back, when nothing more is going to be typed.
    pub(super) fn rest(&mut self) -> &[u8] {
        &self.sequence[..std::mem::take(&mut self.typed)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str, chunks: &[&str]) -> (String, bool) {
        let mut keys: DetachKeys = keys.parse().unwrap();
        let mut out = VecDeque::new();
        let mut detached = false;
        for chunk in chunks {
            detached |= keys.take(chunk.as_bytes(), &mut out);
        }
        out.extend(keys.rest());
        (String::from_utf8(out.into()).unwrap(), detached)
    }

    #[test]
    fn sequences() {
        let keys = "ctrl-p,ctrl-q";
        assert_eq!(keys.parse::<DetachKeys>().unwrap(), DetachKeys::default());
        assert_eq!(typed(keys, &["ls\x10\x11never"]), ("ls".into(), true));
        assert_eq!(typed(keys, &["\x10", "\x11"]), ("".into(), true));
        assert_eq!(typed(keys, &["\x10", "x"]), ("\x10x".into(), false));
        assert_eq!(typed(keys, &["\x10\x10\x11"]), ("\x10".into(), true));
        assert_eq!(typed(keys, &["\x11\x10"]), ("\x11\x10".into(), false));
        assert_eq!(typed("a,a,b", &["aaab"]), ("a".into(), true));
        assert_eq!(typed("a,b,a,c", &["ababac"]), ("ab".into(), true));
        assert_eq!(typed("", &["\x10\x11"]), ("\x10\x11".into(), false));
        assert_eq!(typed("ctrl-a,d", &["\x01d"]), ("".into(), true));
        assert_eq!(typed("ctrl-]", &["x\x1d"]), ("x".into(), true));
        assert_eq!(typed("ctrl-@", &["x\0"]), ("x".into(), true));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in ["ctrl-", "ctrl-1", "ab", "ctrl-p,", "ä", "a\n", "shift-a", "a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a"] {
            assert!(bad.parse::<DetachKeys>().is_err(), "{bad:?}");
        }
    }
}
