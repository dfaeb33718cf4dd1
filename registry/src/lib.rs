//! Remembers many envelopes: their bytes, versions and tags.
//!
//! Read in this order: a [`Registry`] is the front; a [`Reference`] or a [`TagQuery`] says which
//! [`Version`] is meant; `versions` and `tags` keep the rows, `envelopes` keeps the bytes,
//! `durable` makes "saved" survive a power cut, and `database` opens the file that holds the rows.
//!
//! ```
//! # async fn example() -> Result<(), registry::Error> {
//! # let (root, file, now) = (std::path::Path::new(""), std::path::Path::new(""), std::time::UNIX_EPOCH);
//! use registry::{Reference, Registry};
//!
//! let registry = Registry::open(root).await?;
//! let saved = registry.save(file, now).await?;
//! let latest = registry.resolve(&"region in (US,UK),!deprecated".parse::<Reference>()?).await?;
//! # Ok(()) }
//! ```
//!
//! What is absent: nothing here loads a pickle or runs code of an envelope, and nothing changes or
//! replaces the bytes behind a digest. Bytes are stored first, then the row that points at them, so
//! a crash leaves at most bytes that nobody sees.

mod database;
mod durable;
mod envelopes;
mod error;
mod not_found;
mod reference;
mod registry;
mod tag_query;
mod tags;
mod versions;

pub use error::{Error, InvalidReference, InvalidTag, InvalidTagQuery};
pub use reference::Reference;
pub use registry::Registry;
pub use tag_query::TagQuery;
pub use versions::Version;
