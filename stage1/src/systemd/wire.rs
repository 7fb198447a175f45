//! Encoding and decoding of D-Bus messages, with the types that systemd's manager uses. Pure functions.
//!
//! The input is not trusted: every length is checked before it is used, no input causes a panic, and a message has at
//! most [`MESSAGE_MAX`] bytes. Both byte orders are read; little endian is written.

use super::signature::{DEPTH_MAX, alignment, type_length};
use crate::error::{Context, Error, Result};

/// Maximum length of a message that is accepted or sent, in bytes.
pub const MESSAGE_MAX: usize = 1 << 20;
/// Length of the fixed part of a header, which has the length of the message, in bytes.
const FIXED_HEADER: usize = 16;
/// Maximum length of a signature in the D-Bus specification, in bytes.
const SIGNATURE_MAX: usize = 255;

/// The value of a property; each variant names its D-Bus type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `s` or `o`
    Text(String),
    /// `as`
    Texts(Vec<String>),
    /// `au`; sent only, never returned by a reader.
    Numbers(Vec<u32>),
    /// `a(ss)`; sent only, never returned by a reader.
    Pairs(Vec<(String, String)>),
    /// `(uo)`: the number of a unit's job; 0 if it has none. It can't be sent.
    Job(u32),
    /// The signature of any other type, whose value was checked and skipped. It can't be sent.
    Other(String),
}

impl Value {
    fn signature(&self) -> &str {
        match self {
            Self::Bool(_) => "b",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::Text(_) => "s",
            Self::Texts(_) => "as",
            Self::Numbers(_) => "au",
            Self::Pairs(_) => "a(ss)",
            Self::Job(_) => "(uo)",
            Self::Other(signature) => signature,
        }
    }
}

/// The arguments of a call, encoded.
#[derive(Default)]
pub struct Body {
    signature: String,
    bytes: Vec<u8>,
}

impl Body {
    /// Adds a string, `s`.
    ///
    /// # Errors
    /// `value` has a NUL byte, which D-Bus strings can't have.
    pub fn text(mut self, value: &str) -> Result<Self> {
        self.signature.push('s');
        write_text(&mut self.bytes, value)?;
        Ok(self)
    }

    /// Adds a signed 32-bit number, `i`.
    pub fn i32(mut self, value: i32) -> Self {
        self.signature.push('i');
        write_u32(&mut self.bytes, value.cast_unsigned());
        self
    }

    /// Adds a boolean, `b`.
    pub fn bool(mut self, value: bool) -> Self {
        self.signature.push('b');
        write_u32(&mut self.bytes, value.into());
        self
    }

    /// Adds an array of properties, `a(sv)`.
    ///
    /// # Errors
    /// A string has a NUL byte, or a value is of a type that can't be sent.
    pub fn properties(mut self, properties: &[(&str, Value)]) -> Result<Self> {
        self.signature.push_str("a(sv)");
        write_array(&mut self.bytes, 8, |bytes| {
            for (name, value) in properties {
                pad(bytes, 8);
                write_text(bytes, name)?;
                write_variant(bytes, value).context(|| format!("property {name}"))?;
            }
            Ok(())
        })?;
        Ok(self)
    }
}

impl Body {
    /// Adds an empty array of auxiliary units, `a(sa(sv))`.
    ///
    /// # Errors
    /// None in practice: the array is empty.
    pub fn no_units(mut self) -> Result<Self> {
        self.signature.push_str("a(sa(sv))");
        write_array(&mut self.bytes, 8, |_| Ok(()))?;
        Ok(self)
    }
}

/// Encodes a method call to systemd's manager.
///
/// # Errors
/// A string has a NUL byte, or the message is longer than [`MESSAGE_MAX`].
pub fn method_call(serial: u32, path: &str, interface: &str, member: &str, body: &Body) -> Result<Vec<u8>> {
    let mut bytes = vec![b'l', 1, 0, 1];
    write_u32(&mut bytes, u32::try_from(body.bytes.len()).context(|| "length of a call")?);
    write_u32(&mut bytes, serial);
    write_array(&mut bytes, 8, |bytes| {
        for (code, kind, value) in [(1, "o", path), (2, "s", interface), (3, "s", member)] {
            pad(bytes, 8);
            bytes.push(code);
            write_signature(bytes, kind)?;
            write_text(bytes, value)?;
        }
        if !body.signature.is_empty() {
            pad(bytes, 8);
            bytes.push(8);
            write_signature(bytes, "g")?;
            write_signature(bytes, &body.signature)?;
        }
        Ok(())
    })?;
    pad(&mut bytes, 8);
    bytes.extend_from_slice(&body.bytes);
    if bytes.len() > MESSAGE_MAX {
        return Err(Error::new(format!("{member}: a call of {} bytes is longer than {MESSAGE_MAX}", bytes.len())));
    }
    Ok(bytes)
}

fn pad(bytes: &mut Vec<u8>, alignment: usize) {
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
}

fn write_u32(bytes: &mut Vec<u8>, value: u32) {
    pad(bytes, 4);
    bytes.extend_from_slice(&value.to_le_bytes());
}

fn write_u64(bytes: &mut Vec<u8>, value: u64) {
    pad(bytes, 8);
    bytes.extend_from_slice(&value.to_le_bytes());
}

fn write_text(bytes: &mut Vec<u8>, value: &str) -> Result<()> {
    if value.contains('\0') {
        return Err(Error::new(format!("{value:?} has a NUL byte")));
    }
    write_u32(bytes, u32::try_from(value.len()).context(|| "length of a string")?);
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(0);
    Ok(())
}

fn write_signature(bytes: &mut Vec<u8>, value: &str) -> Result<()> {
    bytes.push(u8::try_from(value.len()).context(|| format!("length of signature {value:?}"))?);
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(0);
    Ok(())
}

fn write_array(bytes: &mut Vec<u8>, alignment: usize, elements: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    write_u32(bytes, 0);
    let length_at = bytes.len() - 4;
    pad(bytes, alignment);
    let start = bytes.len();
    elements(bytes)?;
    let length = u32::try_from(bytes.len() - start).context(|| "length of an array")?;
    bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

fn write_variant(bytes: &mut Vec<u8>, value: &Value) -> Result<()> {
    write_signature(bytes, value.signature())?;
    match value {
        Value::Bool(v) => write_u32(bytes, (*v).into()),
        Value::I32(v) => write_u32(bytes, v.cast_unsigned()),
        Value::U32(v) => write_u32(bytes, *v),
        Value::I64(v) => write_u64(bytes, v.cast_unsigned()),
        Value::U64(v) => write_u64(bytes, *v),
        Value::Text(v) => write_text(bytes, v)?,
        Value::Texts(v) => {
            write_array(bytes, 4, |bytes| v.iter().try_for_each(|text| write_text(bytes, text)))?;
        }
        Value::Numbers(v) => write_array(bytes, 4, |bytes| {
            v.iter().for_each(|number| write_u32(bytes, *number));
            Ok(())
        })?,
        Value::Pairs(v) => write_array(bytes, 8, |bytes| {
            v.iter().try_for_each(|(one, other)| {
                pad(bytes, 8);
                write_text(bytes, one)?;
                write_text(bytes, other)
            })
        })?,
        Value::Job(_) => return Err(Error::new("a job can't be sent")),
        Value::Other(signature) => return Err(Error::new(format!("a value of type {signature:?} can't be sent"))),
    }
    Ok(())
}

/// The type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A method call; systemd never sends one to its peers.
    MethodCall,
    /// The reply to a call.
    MethodReturn,
    /// The error reply to a call.
    Error,
    /// A signal, sent to every peer.
    Signal,
    /// A type of a later protocol version; ignored.
    Unknown(u8),
}

/// A message that was received.
#[derive(Debug)]
pub struct Message<'a> {
    /// Its type.
    pub kind: MessageKind,
    /// Path of the object that emitted a signal.
    pub path: Option<&'a str>,
    /// Interface of the signal.
    pub interface: Option<&'a str>,
    /// Name of the signal.
    pub member: Option<&'a str>,
    /// Name of the error.
    pub error_name: Option<&'a str>,
    /// Serial number of the call that this replies to.
    pub reply_serial: Option<u32>,
    /// Types of the body.
    pub signature: &'a str,
    body: &'a [u8],
    big_endian: bool,
}

/// The length of the message at the start of `input`, in bytes; `None` if its fixed header is not complete.
///
/// # Errors
/// `input` does not start with a message, or with one longer than [`MESSAGE_MAX`].
pub fn message_length(input: &[u8]) -> Result<Option<usize>> {
    let Some(fixed) = input.get(..FIXED_HEADER) else { return Ok(None) };
    let big_endian = big_endian(fixed)?;
    let number = |at: usize| -> usize {
        let four = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
        (if big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }) as usize
    };
    let (body, fields) = (number(4), number(12));
    if body > MESSAGE_MAX || fields > MESSAGE_MAX {
        return Err(Error::new(format!("message with {body} + {fields} bytes: at most {MESSAGE_MAX} are accepted")));
    }
    let length = (FIXED_HEADER + fields).next_multiple_of(8) + body;
    if length > MESSAGE_MAX {
        return Err(Error::new(format!("message of {length} bytes: at most {MESSAGE_MAX} are accepted")));
    }
    Ok(Some(length))
}

fn big_endian(header: &[u8]) -> Result<bool> {
    match header.first() {
        Some(b'l') => Ok(false),
        Some(b'B') => Ok(true),
        other => Err(Error::new(format!("not a message: it starts with byte {other:?}"))),
    }
}

impl<'a> Message<'a> {
    /// Parses a complete message.
    ///
    /// # Errors
    /// `bytes` are not exactly one valid D-Bus message.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let big_endian = big_endian(bytes)?;
        let mut reader = Reader { bytes, at: 1, big_endian };
        let kind = match reader.u8()? {
            0 => return Err(Error::new("message of the invalid type 0")),
            1 => MessageKind::MethodCall,
            2 => MessageKind::MethodReturn,
            3 => MessageKind::Error,
            4 => MessageKind::Signal,
            other => MessageKind::Unknown(other),
        };
        reader.u8()?;
        let version = reader.u8()?;
        if version != 1 {
            return Err(Error::new(format!("message of protocol version {version}")));
        }
        let body_length = reader.u32()? as usize;
        if reader.u32()? == 0 {
            return Err(Error::new("message with serial number 0"));
        }
        let mut message = Self {
            kind,
            path: None,
            interface: None,
            member: None,
            error_name: None,
            reply_serial: None,
            signature: "",
            body: &[],
            big_endian,
        };
        let end = reader.array_end(8)?;
        while reader.at < end {
            message.read_field(&mut reader)?;
        }
        reader.at_end_of_array(end)?;
        reader.align(8)?;
        message.body = reader.take(body_length)?;
        reader.finished()?;
        Ok(message)
    }

    fn read_field(&mut self, reader: &mut Reader<'a>) -> Result<()> {
        reader.align(8)?;
        let code = reader.u8()?;
        let signature = reader.signature()?;
        match (code, signature) {
            (1, "o") => self.path = Some(reader.text()?),
            (2, "s") => self.interface = Some(reader.text()?),
            (3, "s") => self.member = Some(reader.text()?),
            (4, "s") => self.error_name = Some(reader.text()?),
            (5, "u") => self.reply_serial = Some(reader.u32()?),
            (8, "g") => self.signature = reader.signature()?,
            (1..=5 | 8, other) => {
                return Err(Error::new(format!("header field {code} has type {other:?}")));
            }
            (_, other) => reader.skip_single(other)?,
        }
        Ok(())
    }

    /// A reader of the body, which must have this signature.
    ///
    /// # Errors
    /// The body has another signature.
    pub fn body(&self, signature: &str) -> Result<Reader<'a>> {
        if self.signature != signature {
            return Err(Error::new(format!("body of type {:?}, expected {signature:?}", self.signature)));
        }
        Ok(Reader { bytes: self.body, at: 0, big_endian: self.big_endian })
    }

    /// The first value of the body, if that is a string.
    pub fn leading_text(&self) -> Option<&'a str> {
        if !self.signature.starts_with('s') {
            return None;
        }
        Reader { bytes: self.body, at: 0, big_endian: self.big_endian }.text().ok()
    }
}

/// Reads values one after the other. Offsets, and with them alignment, count from the start of `bytes`.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let taken = self.at.checked_add(length).and_then(|end| self.bytes.get(self.at..end)).context(|| {
            format!("message ends early: expected {length} bytes at {} of {}", self.at, self.bytes.len())
        })?;
        self.at += length;
        Ok(taken)
    }

    fn align(&mut self, alignment: usize) -> Result<()> {
        let padding = self.take(self.at.next_multiple_of(alignment) - self.at)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(Error::new(format!("padding before {} is not zero", self.at)));
        }
        Ok(())
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// Reads a `u`.
    ///
    /// # Errors
    /// The message ends early, or padding is not zero.
    pub fn u32(&mut self) -> Result<u32> {
        self.align(4)?;
        let mut four = [0; 4];
        four.copy_from_slice(self.take(4)?);
        Ok(if self.big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
    }

    fn u64(&mut self) -> Result<u64> {
        self.align(8)?;
        let mut eight = [0; 8];
        eight.copy_from_slice(self.take(8)?);
        Ok(if self.big_endian { u64::from_be_bytes(eight) } else { u64::from_le_bytes(eight) })
    }

    fn bool(&mut self) -> Result<bool> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::new(format!("boolean with value {other}"))),
        }
    }

    /// Reads an `s` or an `o`.
    ///
    /// # Errors
    /// The message ends early, or the string is not UTF-8 with a single NUL byte at its end.
    pub fn text(&mut self) -> Result<&'a str> {
        let length = self.u32()? as usize;
        self.terminated(length)
    }

    fn signature(&mut self) -> Result<&'a str> {
        let length = self.u8()? as usize;
        self.terminated(length)
    }

    fn terminated(&mut self, length: usize) -> Result<&'a str> {
        let text = self.take(length)?;
        if self.u8()? != 0 || text.contains(&0) {
            return Err(Error::new(format!("string before {} does not end with its only NUL", self.at)));
        }
        std::str::from_utf8(text).context(|| format!("string before {}", self.at))
    }

    /// Reads the length of an array; returns the offset of its end.
    fn array_end(&mut self, alignment: usize) -> Result<usize> {
        let length = self.u32()? as usize;
        self.align(alignment)?;
        match self.at.checked_add(length) {
            Some(end) if end <= self.bytes.len() => Ok(end),
            _ => Err(Error::new(format!("array of {length} bytes at {} of {}", self.at, self.bytes.len()))),
        }
    }

    fn at_end_of_array(&self, end: usize) -> Result<()> {
        if self.at == end {
            Ok(())
        } else {
            Err(Error::new(format!("array ends at {end}, its elements at {}", self.at)))
        }
    }

    /// Reads a `v`.
    ///
    /// # Errors
    /// The value is malformed.
    pub fn variant(&mut self) -> Result<Value> {
        Ok(match self.signature()? {
            "b" => Value::Bool(self.bool()?),
            "i" => Value::I32(self.u32()?.cast_signed()),
            "u" => Value::U32(self.u32()?),
            "x" => Value::I64(self.u64()?.cast_signed()),
            "t" => Value::U64(self.u64()?),
            "s" | "o" => Value::Text(self.text()?.to_owned()),
            "(uo)" => {
                self.align(8)?;
                let number = self.u32()?;
                self.text()?;
                Value::Job(number)
            }
            "as" => {
                let end = self.array_end(4)?;
                let mut texts = Vec::new();
                while self.at < end {
                    texts.push(self.text()?.to_owned());
                }
                self.at_end_of_array(end)?;
                Value::Texts(texts)
            }
            other => {
                self.skip_single(other)?;
                Value::Other(other.to_owned())
            }
        })
    }

    /// Reads an `a{sv}`.
    ///
    /// # Errors
    /// An entry is malformed.
    pub fn dictionary(&mut self) -> Result<Vec<(String, Value)>> {
        let end = self.array_end(8)?;
        let mut entries = Vec::new();
        while self.at < end {
            self.align(8)?;
            let name = self.text()?.to_owned();
            let value = self.variant().context(|| format!("property {name}"))?;
            entries.push((name, value));
        }
        self.at_end_of_array(end)?;
        Ok(entries)
    }

    /// Checks that all bytes were read.
    ///
    /// # Errors
    /// Bytes are left.
    pub fn finished(&self) -> Result<()> {
        let left = self.bytes.len() - self.at;
        if left == 0 { Ok(()) } else { Err(Error::new(format!("{left} bytes too many"))) }
    }

    fn skip_single(&mut self, signature: &str) -> Result<()> {
        let rest = self.skip(signature.as_bytes(), 0)?;
        if rest.is_empty() { Ok(()) } else { Err(Error::new(format!("{signature:?} is more than one type"))) }
    }

    /// Skips one value of the first type of `signature`; returns the types after it.
    fn skip<'s>(&mut self, signature: &'s [u8], depth: usize) -> Result<&'s [u8]> {
        if depth > DEPTH_MAX || signature.len() > SIGNATURE_MAX {
            return Err(Error::new(format!("types nested deeper than {DEPTH_MAX}")));
        }
        let (kind, rest) = signature.split_first().context(|| "a type is missing")?;
        match kind {
            b'y' => drop(self.u8()?),
            b'b' => drop(self.bool()?),
            b'n' | b'q' => {
                self.align(2)?;
                self.take(2)?;
            }
            b'i' | b'u' | b'h' => drop(self.u32()?),
            b'x' | b't' | b'd' => drop(self.u64()?),
            b's' | b'o' => drop(self.text()?),
            b'g' => drop(self.signature()?),
            b'v' => {
                let inner = self.signature()?;
                if !self.skip(inner.as_bytes(), depth + 1)?.is_empty() {
                    return Err(Error::new(format!("variant of type {inner:?}")));
                }
            }
            b'a' => {
                let element = type_length(rest, depth)?;
                let (element, rest) = rest.split_at(element);
                let end = self.array_end(alignment(element))?;
                while self.at < end {
                    self.skip(element, depth + 1)?;
                }
                self.at_end_of_array(end)?;
                return Ok(rest);
            }
            b'(' | b'{' => {
                self.align(8)?;
                let inner = type_length(signature, depth)?;
                let (inner, rest) = signature.split_at(inner);
                let mut members = &inner[1..inner.len() - 1];
                while !members.is_empty() {
                    members = self.skip(members, depth + 1)?;
                }
                return Ok(rest);
            }
            other => return Err(Error::new(format!("unknown type {:?}", char::from(*other)))),
        }
        Ok(rest)
    }
}
