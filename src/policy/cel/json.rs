//! JSON as values of CEL, within bounds. Strings without escapes are borrowed from the request.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use cel::common::value::Val;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

use super::program::ExpressionFailure;

/// The longest text of arguments that rules read.
pub(crate) const MAX_BYTES: usize = 64 * 1024;

/// The most values in it, counting every element, key and container.
pub(crate) const MAX_VALUES: usize = 4_096;

/// The most elements of one list, and the most keys of one object.
pub(crate) const MAX_ELEMENTS: usize = 1_000;

/// The deepest nesting: dropping, comparing and copying recurse.
pub(crate) const MAX_DEPTH: usize = 64;

/// A value that may borrow from the request.
pub(crate) type Tree<'a> = Box<dyn Val + 'a>;

/// Parses arguments.
pub(crate) fn parse(text: &str) -> Result<Tree<'_>, ExpressionFailure> {
    if text.len() > MAX_BYTES {
        return Err(ExpressionFailure::ArgumentsTooLarge("more than 64 KiB"));
    }
    let mut bounds = Bounds::default();
    let mut reader = serde_json::Deserializer::from_str(text);
    let node = Node { bounds: &mut bounds, depth: 0 };
    match node.deserialize(&mut reader).and_then(|tree| reader.end().map(|()| tree)) {
        Ok(tree) => Ok(tree),
        Err(_) => Err(match bounds.exceeded {
            Some(what) => ExpressionFailure::ArgumentsTooLarge(what),
            None => ExpressionFailure::InvalidArguments,
        }),
    }
}

/// Converts claims, which are parsed already.
pub(crate) fn convert(value: &Json) -> Result<Tree<'_>, ExpressionFailure> {
    let mut bounds = Bounds::default();
    let node = Node { bounds: &mut bounds, depth: 0 };
    node.deserialize(value)
        .map_err(|_| ExpressionFailure::ClaimsTooLarge(bounds.exceeded.unwrap_or("not representable")))
}

#[derive(Default)]
struct Bounds {
    values: usize,
    exceeded: Option<&'static str>,
}

impl Bounds {
    fn check<E: Error>(&mut self, fits: bool, what: &'static str) -> Result<(), E> {
        if fits {
            return Ok(());
        }
        self.exceeded = Some(what);
        Err(E::custom(what))
    }

    fn count<E: Error>(&mut self) -> Result<(), E> {
        self.values += 1;
        self.check(self.values <= MAX_VALUES, "more than 4,096 values")
    }
}

/// One value at some depth.
struct Node<'m> {
    bounds: &'m mut Bounds,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Tree<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree<'de>, D::Error> {
        self.bounds.count()?;
        self.bounds.check(self.depth <= MAX_DEPTH, "nesting deeper than 64")?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Tree<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree<'de>, E> {
        Ok(Box::new(CelBool::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree<'de>, E> {
        Ok(Box::new(CelInt::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree<'de>, E> {
        Ok(match i64::try_from(value) {
            Ok(value) => Box::new(CelInt::from(value)),
            Err(_) => Box::new(CelUInt::from(value)),
        })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree<'de>, E> {
        Ok(Box::new(CelDouble::from(value)))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Tree<'de>, E> {
        Ok(Box::new(CelString::from(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree<'de>, E> {
        Ok(Box::new(CelString::from(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Tree<'de>, E> {
        Ok(Box::new(CelNull))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree<'de>, A::Error> {
        let mut list: Vec<Tree<'de>> = Vec::new();
        while let Some(item) =
            seq.next_element_seed(Node { bounds: &mut *self.bounds, depth: self.depth + 1 })?
        {
            self.bounds.check(list.len() < MAX_ELEMENTS, "a list with more than 1,000 elements")?;
            list.push(item);
        }
        Ok(Box::new(CelList::from(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Tree<'de>, A::Error> {
        let mut map: HashMap<CelMapKey<'de>, Tree<'de>> = HashMap::new();
        while let Some(key) = object.next_key_seed(Key)? {
            self.bounds.count()?;
            self.bounds.check(map.len() < MAX_ELEMENTS, "an object with more than 1,000 keys")?;
            let node = Node { bounds: &mut *self.bounds, depth: self.depth + 1 };
            let value = object.next_value_seed(node)?;
            match map.entry(CelMapKey::String(CelString::from(key))) {
                // The rule and the server behind us might each take another of the two.
                Entry::Occupied(_) => return Err(A::Error::custom("duplicate key")),
                Entry::Vacant(vacant) => drop(vacant.insert(value)),
            }
        }
        Ok(Box::new(CelMap::from(map)))
    }
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}
