//! A writer of wheels, good and bad.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::bufread::DeflateEncoder;
use sha2::{Digest as _, Sha256};

use super::{Patch, crc, patched};

pub(crate) const NAME: &str = "pricing-1.0-py3-none-any.whl";

/// A wheel to be written.
#[derive(Clone)]
pub(crate) struct Wheel {
    pub(crate) files: Vec<File>,
    /// Put after `RECORD` has been made.
    pub(crate) unlisted: Vec<File>,
    /// Changes the text of `RECORD`.
    pub(crate) record: fn(String) -> String,
    pub(crate) patch_end: Patch,
    pub(crate) before: Vec<u8>,
}

#[derive(Clone)]
pub(crate) struct File {
    pub(crate) name: Vec<u8>,
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) flags: u16,
    pub(crate) extra: Vec<u8>,
    pub(crate) method: u16,
    pub(crate) patch_local: Patch,
    pub(crate) patch_record: Patch,
}

pub(crate) fn file(name: &str, content: &str) -> File {
    File {
        name: name.into(),
        content: content.into(),
        mode: 0o100_644,
        flags: 0x0800,
        extra: vec![],
        method: 8,
        patch_local: vec![],
        patch_record: vec![],
    }
}

/// A symbolic link.
pub(crate) fn link(name: &str, target: &str) -> File {
    File {
        mode: 0o120_777,
        method: 0,
        ..file(name, target)
    }
}

impl Wheel {
    pub(crate) fn good() -> Self {
        Self {
            files: vec![
                file("pricing/__init__.py", "def price(x):\n    return 2 * x\n"),
                file("pricing/data/rates, old.csv", "a,b\n1,2\n"),
                file(
                    "pricing-1.0.dist-info/METADATA",
                    "Metadata-Version: 2.1\nName: pricing\nVersion: 1.0\n",
                ),
                file(
                    "pricing-1.0.dist-info/WHEEL",
                    "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
                ),
            ],
            unlisted: vec![],
            record: |text| text,
            patch_end: vec![],
            before: vec![],
        }
    }

    /// A good wheel with one more file, truly listed.
    pub(crate) fn with(more: File) -> Self {
        let mut wheel = Self::good();
        wheel.files.push(more);
        wheel
    }

    pub(crate) fn changed(change: impl Fn(&mut Self)) -> Self {
        let mut wheel = Self::good();
        change(&mut wheel);
        wheel
    }

    fn listed(&self) -> String {
        let mut text = String::new();
        for file in &self.files {
            let name = String::from_utf8_lossy(&file.name);
            let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(&file.content));
            let quote = if name.contains(',') { "\"" } else { "" };
            text += &format!(
                "{quote}{name}{quote},sha256={digest},{}\n",
                file.content.len()
            );
        }
        (self.record)(text + "pricing-1.0.dist-info/RECORD,,\n")
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.renamed_record("pricing-1.0.dist-info/RECORD")
    }

    /// The wheel, with another name of its `RECORD`.
    pub(crate) fn renamed_record(&self, name: &str) -> Vec<u8> {
        let record = file(name, &self.listed());
        let files = self.files.iter().chain([&record]).chain(&self.unlisted);
        let (mut out, mut directory, mut count) = (self.before.clone(), vec![], 0u16);
        for file in files {
            directory.extend(file.record(out.len()));
            out.extend(file.local());
            count += 1;
        }
        let (offset, size) = (out.len(), directory.len());
        out.extend(directory);
        let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
        end.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
        end.extend(u32::try_from(size).unwrap().to_le_bytes());
        end.extend(u32::try_from(offset).unwrap().to_le_bytes());
        end.extend([0, 0]);
        out.extend(patched(end, &self.patch_end));
        out
    }
}

impl File {
    fn stored(&self) -> Vec<u8> {
        let mut stored = vec![];
        match self.method {
            8 => DeflateEncoder::new(&self.content[..], Compression::default())
                .read_to_end(&mut stored)
                .unwrap(),
            _ => self.content.as_slice().read_to_end(&mut stored).unwrap(),
        };
        stored
    }

    fn common(&self) -> Vec<u8> {
        let mut out = vec![20, 0];
        out.extend(self.flags.to_le_bytes());
        out.extend(self.method.to_le_bytes());
        out.extend([0, 0, 0x21, 0]);
        for value in [
            crc(&self.content),
            length(&self.stored()),
            length(&self.content),
        ] {
            out.extend(value.to_le_bytes());
        }
        out.extend(u16::try_from(self.name.len()).unwrap().to_le_bytes());
        out.extend(u16::try_from(self.extra.len()).unwrap().to_le_bytes());
        out
    }

    fn local(&self) -> Vec<u8> {
        let head = [
            b"PK\x03\x04".as_slice(),
            &self.common(),
            &self.name,
            &self.extra,
        ]
        .concat();
        [patched(head, &self.patch_local), self.stored()].concat()
    }

    fn record(&self, offset: usize) -> Vec<u8> {
        let mut out = b"PK\x01\x02\x14\x03".to_vec();
        out.extend(self.common());
        out.extend([0; 6]);
        out.extend((self.mode << 16).to_le_bytes());
        out.extend(u32::try_from(offset).unwrap().to_le_bytes());
        out.extend(&self.name);
        out.extend(&self.extra);
        patched(out, &self.patch_record)
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}
