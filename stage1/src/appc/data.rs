//! How the parts of manifests are written down: each field once, with its name in JSON.

/// A structure of which `field: Type = "key"` must be there, and `field: Type = "key" or default` need not be.
macro_rules! data {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident : $type:ty = $key:literal $(or $default:ident)?,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(rename = $key)] pub $field: $type,)*
            /// Fields that are not known here.
            #[serde(flatten)]
            pub other: Map<String, Value>,
        }

        impl FromJson for $name {
            fn from_json(value: Value) -> Result<Self> {
                let mut object = Object::new(value)?;
                Ok(Self { $($field: member!(object, $key $(, $default)?)?,)* other: object.rest() })
            }
        }
    };
}

macro_rules! member {
    ($object:ident, $key:literal) => {
        $object.required($key)
    };
    ($object:ident, $key:literal, default) => {
        $object.optional($key)
    };
}

/// A structure without a field that must be there; what is as by default is not written.
macro_rules! optional_data {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $type:ty = $key:literal,)* }) => {
        data!($(#[$doc])* #[derive(Default)] $name {
            $($(#[$field_doc])* #[serde(skip_serializing_if = "is_default")] $field : $type = $key or default,)*
        });
    };
}

/// A word of the specification.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        pub enum $name {
            $($(#[$word_doc])* #[serde(rename = $text)] $word,)*
        }

        impl FromJson for $name {
            fn from_json(value: Value) -> Result<Self> {
                match value.as_str() {
                    $(Some($text) => Ok(Self::$word),)*
                    _ => Err(json::is_not(concat!("one of:", $(" ", $text),*), &value)),
                }
            }
        }
    };
}
