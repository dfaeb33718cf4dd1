//! The envelope: one file that holds a query function and the evidence about it.
//!
//! An envelope is a ZIP64 archive whose last entry, `manifest.json`, lists every other entry
//! with its size and SHA-256. The SHA-256 of the manifest is the envelope's identity. `SPEC.md`
//! states the format rule by rule; each rule has one [`Error`] variant and at least one vector
//! under `vectors/`.
//!
//! This crate turns bytes into values and values into bytes. It reads no clock, opens no socket
//! and runs no Python: opening an envelope executes nothing that is in it.
//!
//! ```
//! use envelope_format::{Content, Draft, Envelope, Manifest, MemberName};
//!
//! # fn main() -> Result<(), envelope_format::Error> {
//! let mut draft = Draft::new(Manifest::example());
//! for name in ["environment/pylock.toml", "state/functions.pkl"] {
//!     draft.add(name.parse::<MemberName>()?, Content::Text(b"lock-version = \"1.0\"\n".to_vec()));
//! }
//! let mut bytes = Vec::new();
//! let digest = draft.write(&mut bytes)?;
//!
//! let envelope = Envelope::open(bytes)?;
//! assert_eq!(envelope.digest(), digest);
//! envelope.verify()?;
//! # Ok(()) }
//! ```

mod archive;
mod attestation;
mod content;
mod digest;
mod error;
pub mod limits;
mod lock;
mod manifest;
mod member;
mod read;
mod signature;
mod source;
pub mod statistics;
mod wheel;
mod write;

pub use attestation::{Attestation, InvalidKey, PublicKey, SecretKey, Trust};
pub use digest::{Digest, InvalidDigest};
pub use error::Error;
pub use lock::{Lock, Package, PackageFile, Repository};
pub use manifest::{
    Certificate, Environment, Equality, Function, Interpreter, Manifest, Member, Parameter, Proof,
    Sample, SourceCode, State,
};
pub use member::{Encoding, MemberName};
pub use read::{Envelope, MemberRange};
pub use signature::{DataType, Field, InvalidDataType, Rows, Shape, Signature, TimeUnit};
pub use source::{ReadAt, Section, WriteAt, open_file};
pub use wheel::check_wheel;
pub use write::{Buffer, Buffers, Content, Draft};
