//! Frames: length, checksum, body. A frame that is too long or does not match its checksum ends its connection.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Length and CRC-32 of the body, each 4 bytes, big-endian.
const HEADER_SIZE: usize = 8;
/// How much is read at once, where that much is there.
const READ_SIZE: usize = 64 << 10;
/// Bodies below this are copied out of the read buffer: else a small message that is kept would keep all of it.
const COPY_SIZE_MAX: usize = 4 << 10;
/// Bodies from this size on are written from where they are.
const GATHER_SIZE_MAX: usize = 16 << 10;
/// Smaller ones are gathered until there is this much to write.
const WRITE_SIZE: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("a frame of {0} bytes, where at most {1} are allowed")]
    TooLong(usize, usize),
    #[error("a frame does not match its checksum")]
    Checksum,
}

/// Reads frames from one end of a connection.
pub(super) struct Frames<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub fn new(stream: R) -> Frames<R> {
        Frames {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// Exactly `N` bytes, outside of any frame.
    pub async fn raw<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        while self.buffer.len() < N {
            if !self.fill(N).await? {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        let mut bytes = [0; N];
        self.buffer.copy_to_slice(&mut bytes);
        Ok(bytes)
    }

    /// The next frame's body; `None` when the peer has closed the connection between two frames.
    pub async fn next(&mut self, size_max: usize) -> Result<Option<Bytes>, FrameError> {
        loop {
            let mut wanted = HEADER_SIZE;
            if let Some((length, checksum)) = self.header() {
                if length > size_max {
                    return Err(FrameError::TooLong(length, size_max));
                }
                wanted += length;
                if self.buffer.len() >= wanted {
                    self.buffer.advance(HEADER_SIZE);
                    return self.take_body(length, checksum).map(Some);
                }
            }
            if !self.fill(wanted).await? {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    fn header(&self) -> Option<(usize, u32)> {
        let header = self.buffer.first_chunk::<HEADER_SIZE>()?;
        let header = u64::from_be_bytes(*header);
        Some(((header >> 32) as usize, header as u32))
    }

    fn take_body(&mut self, length: usize, checksum: u32) -> Result<Bytes, FrameError> {
        if crc32fast::hash(&self.buffer[..length]) != checksum {
            return Err(FrameError::Checksum);
        }
        if length < COPY_SIZE_MAX {
            let body = Bytes::copy_from_slice(&self.buffer[..length]);
            self.buffer.advance(length);
            return Ok(body);
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    /// Reads more; false at the end of the stream. Room is made for what the peer has announced only as it
    /// comes, doubling, so that an announcement alone takes no memory.
    async fn fill(&mut self, wanted: usize) -> Result<bool, io::Error> {
        let missing = wanted.saturating_sub(self.buffer.len());
        let room = missing.clamp(READ_SIZE, READ_SIZE.max(self.buffer.len()));
        self.buffer.reserve(room);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }
}

/// Writes frames, many at once.
pub(super) struct FrameWriter<W> {
    stream: W,
    buffer: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub fn new(stream: W) -> FrameWriter<W> {
        FrameWriter {
            stream,
            buffer: Vec::new(),
        }
    }

    pub fn put_raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Adds a frame, and writes what has gathered when it is enough. `flush` writes the rest.
    pub async fn put(&mut self, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        self.buffer.put_u32(length);
        self.buffer.put_u32(crc32fast::hash(body));
        if body.len() >= GATHER_SIZE_MAX {
            self.flush().await?;
            return self.stream.write_all(body).await;
        }
        self.buffer.extend_from_slice(body);
        if self.buffer.len() >= WRITE_SIZE {
            self.flush().await?;
        }
        Ok(())
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.stream.write_all(&self.buffer).await?;
            self.buffer.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_end_in_an_error_or_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut frames = Frames::new(&bytes[..]);
                while let Ok(Some(_)) = frames.next(1 << 20).await {}
            });
        }
    }

    async fn written(bodies: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes);
        for body in bodies {
            writer.put(body).await.unwrap();
        }
        writer.flush().await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn frames_come_back_in_order_whatever_their_size() {
        let large = vec![7; 300_000];
        let bodies: [&[u8]; 5] = [b"a", b"", &large[..20_000], &large, b"z"];
        let bytes = written(&bodies).await;
        assert_eq!(
            bytes[..12],
            [0, 0, 0, 1, 0xE8, 0xB7, 0xBE, 0x43, b'a', 0, 0, 0]
        );
        let mut frames = Frames::new(&bytes[..]);
        for body in bodies {
            assert_eq!(frames.next(1 << 20).await.unwrap().unwrap(), body);
        }
        assert!(frames.next(1 << 20).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn damage_and_excess_are_refused() {
        let mut bytes = written(&[b"hello"]).await;
        assert!(matches!(
            Frames::new(&bytes[..]).next(4).await,
            Err(FrameError::TooLong(5, 4))
        ));
        assert!(matches!(
            Frames::new(&bytes[..bytes.len() - 1]).next(5).await,
            Err(FrameError::Io(_))
        ));
        *bytes.last_mut().unwrap() ^= 1;
        assert!(matches!(
            Frames::new(&bytes[..]).next(5).await,
            Err(FrameError::Checksum)
        ));
    }

    #[tokio::test]
    async fn an_announcement_alone_takes_no_memory() {
        let bytes = [0x01, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
        let mut frames = Frames::new(&bytes[..]);
        assert!(frames.next(32 << 20).await.is_err());
        assert!(frames.buffer.capacity() <= 4 * READ_SIZE);
    }
}
