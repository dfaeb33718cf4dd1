//! A value of JSON, as it is told to the caller.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess};

/// A value of any kind, as it is shown to the caller.
#[derive(Clone, Copy)]
pub(super) enum Got<'v> {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(&'v str),
    List,
    Items(usize),
    Object,
}

impl fmt::Display for Got<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => formatter.write_str("null"),
            Self::Bool(value) => value.fmt(formatter),
            Self::Integer(value) => value.fmt(formatter),
            Self::Float(value) => write!(formatter, "{value:?}"),
            Self::Text(value) => write!(formatter, "{:?}", crate::error::cut(value, 64)),
            Self::List => formatter.write_str("a list"),
            Self::Items(count) => write!(formatter, "a list of {count}"),
            Self::Object => formatter.write_str("an object"),
        }
    }
}

/// Visits the values that are plain in one way: by making a [`Got`] of them.
macro_rules! plain_values {
    () => {
        plain_values! {
            visit_bool: bool => Got::Bool;
            visit_i64: i64 => |value| Got::Integer(i128::from(value));
            visit_u64: u64 => |value| Got::Integer(i128::from(value));
            visit_f64: f64 => Got::Float;
            visit_str: &str => Got::Text;
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
            self.take(Got::Null)
        }
    };
    ($($visit:ident: $type:ty => $got:expr;)+) => {
        $(fn $visit<E: serde::de::Error>(self, value: $type) -> Result<(), E> {
            self.take($got(value))
        })+
    };
}

pub(super) use plain_values;

/// Reads a value that is not expected where it is to its end.
pub(super) fn skip_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<(), A::Error> {
    while list.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

pub(super) fn skip_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<(), A::Error> {
    while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}
