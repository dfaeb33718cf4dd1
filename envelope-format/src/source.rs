//! Where the bytes of an envelope are.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::Error;

/// Bytes that can be read at any position, by any number of readers at once.
pub trait ReadAt {
    /// Length in bytes.
    ///
    /// # Errors
    /// When the source cannot tell.
    fn length(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// When fewer bytes are there, or the source fails.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buffer.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn length(&self) -> io::Result<u64> {
        self.as_slice().length()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_at(buffer, offset)
    }
}

/// Opens a file to be read as an envelope. Rule 1.4: other things than regular files may never end,
/// or wait for somebody to write.
///
/// # Errors
/// [`Error::NotRegular`], or what the operating system says.
pub fn open_file(path: &Path) -> Result<File, Error> {
    // Opening a pipe waits for its writer, unless it is told not to.
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(flags).open(path);
    // A socket cannot even be opened, and some devices not without their hardware.
    let kind = match &file {
        Ok(file) => file.metadata()?.file_type(),
        Err(_) => fs::metadata(path)?.file_type(),
    };
    if kind.is_file() {
        return Ok(file?);
    }
    let found = match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(Error::NotRegular { found })
}

impl ReadAt for File {
    fn length(&self) -> io::Result<u64> {
        let metadata = self.metadata()?;
        // A pipe or a device has no length and may never end.
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(metadata.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

/// A file that is written at any position.
pub trait WriteAt {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// When they cannot be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts off what is behind `length`.
    ///
    /// # Errors
    /// When the file cannot be changed.
    fn set_length(&self, length: u64) -> io::Result<()>;
}

impl WriteAt for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// The part of a source from `offset` on, `length` bytes long; a service executable carries its
/// envelope this way.
#[derive(Debug)]
pub struct Section<S> {
    source: S,
    offset: u64,
    length: u64,
}

impl<S: ReadAt> Section<S> {
    /// The bytes `offset..offset + length` of `source`.
    #[must_use]
    pub fn new(source: S, offset: u64, length: u64) -> Self {
        Self {
            source,
            offset,
            length,
        }
    }
}

impl<S: ReadAt> ReadAt for Section<S> {
    fn length(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.source.read_at(buffer, self.offset + offset)
    }
}
