//! A serde deserializer over the tree.
//!
//! In: a [`Node`]. Out: the value, or one [`Error`] with its path, and with parts where serde has a sentence.
//! Enums are externally tagged: `word` or `{ word: … }`.

use std::fmt;

use serde::de::{self, DeserializeSeed, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use crate::config::error::echo;
use crate::config::tree::{Entry, Item, Kind, Node, Scalar, Step};

/// Why a value could not be decoded, and where.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what:?}")]
pub(in crate::config) struct Error {
    /// Path from the root, last step first, because each level adds its step.
    steps: Vec<Step>,
    /// Whether the key is wrong, not the value.
    pub on_key: bool,
    pub what: What,
}

#[derive(Clone, Debug)]
pub(in crate::config) enum What {
    /// An unknown word or key.
    Unknown {
        kind: &'static str,
        word: String,
        known: &'static [&'static str],
    },
    /// A required key that is missing.
    Missing(&'static str),
    /// Another value than the one expected.
    Found { found: String, expected: String },
    /// A message of the decoded type's own.
    Other(String),
}

impl Error {
    fn new(what: What) -> Self {
        Error {
            steps: Vec::new(),
            on_key: false,
            what,
        }
    }

    fn found(node: &Node, expected: impl Into<String>) -> Self {
        let expected = expected.into();
        Error::new(What::Found {
            found: describe(node),
            expected,
        })
    }

    fn below(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Path from the root.
    pub fn path(&self) -> Vec<Step> {
        self.steps.iter().rev().cloned().collect()
    }
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Error::new(What::Other(message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Error::new(What::Found {
            found: unexpected(found),
            expected: expected.to_string(),
        })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        Error::new(What::Unknown {
            kind: "word",
            word: word.to_owned(),
            known,
        })
    }

    fn unknown_field(word: &str, known: &'static [&'static str]) -> Self {
        Error::new(What::Unknown {
            kind: "key",
            word: word.to_owned(),
            known,
        })
    }

    fn missing_field(field: &'static str) -> Self {
        Error::new(What::Missing(field))
    }
}

fn unexpected(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Str(s) => format!("`{}`", echo(s)),
        Unexpected::Unsigned(n) => format!("`{n}`"),
        Unexpected::Signed(n) => format!("`{n}`"),
        Unexpected::Float(n) => format!("`{n}`"),
        Unexpected::Bool(b) => format!("`{b}`"),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a block".to_owned(),
        other => other.to_string(),
    }
}

/// Describes a value for a fault: `8`, a list, nothing.
pub(in crate::config) fn describe(node: &Node) -> String {
    match &node.kind {
        Kind::Scalar { .. } if is_nothing(node) => "nothing".to_owned(),
        Kind::Scalar { text, .. } => format!("`{}`", echo(text)),
        Kind::List(_) => "a list".to_owned(),
        Kind::Map(_) => "a block".to_owned(),
    }
}

fn is_nothing(node: &Node) -> bool {
    node.scalar() == Some(Scalar::Nothing)
}

fn words(known: &[&str]) -> String {
    known
        .iter()
        .map(|w| format!("`{w}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

impl<'de> de::Deserializer<'de> for &'de Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.kind {
            Kind::Scalar { text, .. } => match self.scalar() {
                Some(Scalar::Nothing) => visitor.visit_unit(),
                Some(Scalar::Bool(b)) => visitor.visit_bool(b),
                Some(Scalar::Unsigned(n)) => visitor.visit_u64(n),
                Some(Scalar::Signed(n)) => visitor.visit_i64(n),
                Some(Scalar::Float(n)) => visitor.visit_f64(n),
                Some(Scalar::Text(_)) | None => visitor.visit_borrowed_str(text),
            },
            Kind::List(items) => visitor.visit_seq(List(items.iter().enumerate())),
            Kind::Map(entries) => visitor.visit_map(Map {
                rest: entries.iter(),
                value: None,
            }),
        }
    }

    /// Accepts `true` and `false` only. `True` and `TRUE` are the same to YAML, but one spelling is enough.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.kind {
            Kind::Scalar { text, plain: true } if text == "true" => visitor.visit_bool(true),
            Kind::Scalar { text, plain: true } if text == "false" => visitor.visit_bool(false),
            _ => Err(Error::found(self, "a boolean")),
        }
    }

    /// Accepts any scalar except null as text: a node may be called `1` without quotes.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.kind {
            Kind::Scalar { text, .. } if !is_nothing(self) => visitor.visit_borrowed_str(text),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if is_nothing(self) {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if matches!(self.kind, Kind::Map(_)) {
            return self.deserialize_any(visitor);
        }
        let expected = match fields {
            [] => "a block without keys, `{}`".to_owned(),
            _ => format!("a block of keys ({})", words(fields)),
        };
        Err(Error::found(self, expected))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.kind {
            Kind::Scalar { text, .. } if !is_nothing(self) => visitor.visit_enum(Tagged {
                word: text,
                at: self,
                content: None,
            }),
            Kind::Map(entries) => match entries.as_slice() {
                [one] => {
                    let tagged = Tagged {
                        word: &one.key,
                        at: self,
                        content: Some(&one.node),
                    };
                    visitor.visit_enum(tagged)
                }
                // Usually the second `- ` of a list was forgotten.
                [one, two, ..] => Err(Error::new(What::Found {
                    found: format!("`{}` and `{}` in one block", echo(&one.key), echo(&two.key)),
                    expected: "one of them here, and `- ` before the next".to_owned(),
                })),
                [] => Err(Error::found(self, format!("one of {}", words(known)))),
            },
            _ => Err(Error::found(self, format!("one of {}", words(known)))),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        seq tuple tuple_struct map ignored_any
    }
}

struct List<'de>(std::iter::Enumerate<std::slice::Iter<'de, Item>>);

impl<'de> de::SeqAccess<'de> for List<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some((index, item)) = self.0.next() else {
            return Ok(None);
        };
        seed.deserialize(&item.node)
            .map(Some)
            .map_err(|e| e.below(Step::Index(index)))
    }
}

struct Map<'de> {
    rest: std::slice::Iter<'de, Entry>,
    value: Option<&'de Entry>,
}

impl<'de> de::MapAccess<'de> for Map<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        self.value = self.rest.next();
        let Some(entry) = self.value else {
            return Ok(None);
        };
        // Keys are text, both for the name of a field and for a type that parses text, such as an address.
        let key: de::value::BorrowedStrDeserializer<'de, Error> =
            de::value::BorrowedStrDeserializer::new(&entry.key);
        seed.deserialize(key).map(Some).map_err(|e| Error {
            on_key: true,
            ..e.below(Step::Key(entry.key.clone()))
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some(entry) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(&entry.node)
            .map_err(|e| e.below(Step::Key(entry.key.clone())))
    }
}

/// An enum's word and the value under it.
struct Tagged<'de> {
    word: &'de str,
    at: &'de Node,
    content: Option<&'de Node>,
}

impl<'de> de::EnumAccess<'de> for Tagged<'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let word: de::value::StrDeserializer<'de, Error> = self.word.into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'de> Tagged<'de> {
    /// Returns the value under the word. Errors: there is none.
    fn content(&self) -> Result<&'de Node, Error> {
        self.content.ok_or_else(|| {
            Error::found(
                self.at,
                format!("`{}:` followed by its value or block", echo(self.word)),
            )
        })
    }

    fn below(&self, e: Error) -> Error {
        e.below(Step::Key(self.word.to_owned()))
    }
}

impl<'de> de::VariantAccess<'de> for Tagged<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.content {
            None => Ok(()),
            Some(node) => Err(self.below(Error::found(
                node,
                format!("the word `{}` alone", self.word),
            ))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.content()?).map_err(|e| self.below(e))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        let content = self.content()?;
        de::Deserializer::deserialize_seq(content, visitor).map_err(|e| self.below(e))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let content = self.content()?;
        de::Deserializer::deserialize_struct(content, "", fields, visitor)
            .map_err(|e| self.below(e))
    }
}
