//! Frames on Unix sockets: a little-endian `u32` length, then that many bytes (JSON unless a protocol says otherwise).

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest frame that is accepted: a route table of a hundred thousand apps fits.
pub const MAX: usize = 256 << 20;

fn too_long(length: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("frame of {length} bytes is over the limit of {MAX}"))
}

/// Puts a value into a frame, length included.
///
/// # Errors
/// When the value cannot be written as JSON or is too long.
pub fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, value)?;
    let length = bytes.len() - 4;
    if length > MAX {
        return Err(too_long(length));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

/// Writes one value as a frame.
///
/// # Errors
/// When the value cannot be encoded or the socket fails.
pub async fn write<W: AsyncWrite + Unpin, T: Serialize>(to: &mut W, value: &T) -> io::Result<()> {
    to.write_all(&encode(value)?).await
}

/// Writes bytes as a frame.
///
/// # Errors
/// When the socket fails.
pub async fn write_bytes<W: AsyncWrite + Unpin>(to: &mut W, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() > MAX {
        return Err(too_long(bytes.len()));
    }
    to.write_all(&(bytes.len() as u32).to_le_bytes()).await?;
    to.write_all(bytes).await
}

/// Reads one frame's bytes; `None` at a clean end.
///
/// # Errors
/// When the socket fails or ends inside a frame, or the frame is too long. Not safe to cancel half way.
pub async fn read_bytes<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    let mut have = 0;
    while have < 4 {
        match from.read(&mut length[have..]).await? {
            0 if have == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => have += n,
        }
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX {
        return Err(too_long(length));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok(Some(bytes))
}

/// Reads one frame's value; `None` at a clean end.
///
/// # Errors
/// As [`read_bytes`], or when the bytes are not such a value. Not safe to cancel half way.
pub async fn read<R: AsyncRead + Unpin, T: DeserializeOwned>(from: &mut R) -> io::Result<Option<T>> {
    match read_bytes(from).await? {
        None => Ok(None),
        Some(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
    }
}

/// Writes one value as a frame, blocking.
///
/// # Errors
/// When the value cannot be encoded or the socket fails.
pub fn write_blocking<W: Write, T: Serialize>(to: &mut W, value: &T) -> io::Result<()> {
    to.write_all(&encode(value)?)
}

/// Reads one frame's value, blocking; `None` at a clean end.
///
/// # Errors
/// As [`read`].
pub fn read_blocking<R: Read, T: DeserializeOwned>(from: &mut R) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    let mut have = 0;
    while have < 4 {
        match from.read(&mut length[have..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => have += n,
        }
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX {
        return Err(too_long(length));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}
