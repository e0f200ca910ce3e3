//! The handshake: magic and identity from the side that connects, magic and an answer from the side that accepts.

use super::frame::{FrameError, FrameWriter, Frames};
use super::{Counters, Shared};
use minicbor::{Decode, Encode};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::io::{AsyncRead, AsyncWrite};
use world::{Identity, Rejection};

/// What every connection begins with; the last byte is the version of the handshake itself.
const MAGIC: [u8; 8] = *b"TESSERA\x01";
/// The largest frame before both hellos are accepted.
const HELLO_SIZE_MAX: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub(super) enum HelloError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the peer does not speak this protocol")]
    Magic,
    #[error("the peer's hello is malformed: {0}")]
    Malformed(#[from] minicbor::decode::Error),
    #[error("{0}")]
    Rejected(#[from] Rejection),
    #[error("the peer refuses this node: {0}")]
    RefusedByPeer(String),
    #[error("the peer's address {0:?} cannot be resolved")]
    Address(String),
}

impl From<io::Error> for HelloError {
    fn from(error: io::Error) -> HelloError {
        HelloError::Frame(error.into())
    }
}

impl HelloError {
    /// Whether the peers do not fit together, which an operator should hear of.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            HelloError::Rejected(_) | HelloError::RefusedByPeer(_) | HelloError::Address(_)
        )
    }
}

#[derive(Debug, Encode, Decode)]
enum Answer {
    #[n(0)]
    Accepted(#[n(0)] Identity),
    #[n(1)]
    Refused(#[n(0)] String),
}

/// The side that connects. Returns the peer's identity and the highest incarnation seen of it.
pub(super) async fn connect<R, W>(
    shared: &Shared,
    ours: &Identity,
    frames: &mut Frames<R>,
    writer: &mut FrameWriter<W>,
) -> Result<(Identity, Arc<AtomicU64>), HelloError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    writer.put_raw(&MAGIC);
    writer.put(&to_bytes(ours)).await?;
    writer.flush().await?;
    let answer = read(frames).await?;
    let peer = match minicbor::decode(&answer)? {
        Answer::Accepted(peer) => peer,
        Answer::Refused(reason) => {
            Counters::add(&shared.counters.rejections, 1);
            return Err(HelloError::RefusedByPeer(reason));
        }
    };
    let incarnation = shared.check(ours, &peer).inspect_err(|_| {
        Counters::add(&shared.counters.rejections, 1);
    })?;
    Ok((peer, incarnation))
}

/// The side that accepts. As `connect`.
pub(super) async fn accept<R, W>(
    shared: &Shared,
    ours: &Identity,
    frames: &mut Frames<R>,
    writer: &mut FrameWriter<W>,
) -> Result<(Identity, Arc<AtomicU64>), HelloError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let hello = read(frames).await?;
    let peer: Identity = minicbor::decode(&hello)?;
    let checked = shared.check(ours, &peer);
    let answer = match &checked {
        Ok(_) => Answer::Accepted(ours.clone()),
        Err(rejection) => Answer::Refused(rejection.to_string()),
    };
    writer.put_raw(&MAGIC);
    writer.put(&to_bytes(&answer)).await?;
    writer.flush().await?;
    match checked {
        Ok(incarnation) => Ok((peer, incarnation)),
        Err(rejection) => {
            Counters::add(&shared.counters.rejections, 1);
            Err(rejection.into())
        }
    }
}

async fn read<R: AsyncRead + Unpin>(frames: &mut Frames<R>) -> Result<bytes::Bytes, HelloError> {
    if frames.raw().await? != MAGIC {
        return Err(HelloError::Magic);
    }
    let frame = frames.next(HELLO_SIZE_MAX).await?;
    Ok(frame.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?)
}

fn to_bytes<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("encoding to memory does not fail")
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{ClusterId, Incarnation, NodeId};
    use proptest::prelude::*;

    async fn framed(magic: &[u8], body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes);
        writer.put_raw(magic);
        writer.put(body).await.unwrap();
        writer.flush().await.unwrap();
        bytes
    }

    /// What the accepting side and the connecting side make of bytes that came.
    fn heard(bytes: &[u8]) -> Result<(Option<Identity>, Option<Answer>), HelloError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let hello = runtime.block_on(read(&mut Frames::new(bytes)))?;
        Ok((minicbor::decode(&hello).ok(), minicbor::decode(&hello).ok()))
    }

    fn written(magic: &[u8], body: &[u8]) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(framed(magic, body))
    }

    fn identity() -> Identity {
        Identity {
            cluster: ClusterId([7; 16]),
            node: NodeId(1),
            incarnation: Incarnation(2),
            version_min: 1,
            version_max: 3,
            advertised: "127.0.0.1:7000".to_owned(),
        }
    }

    proptest! {
        #[test]
        fn any_hello_is_refused_or_read(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = heard(&body);
            let (identity, answer) = heard(&written(&MAGIC, &body)).unwrap();
            prop_assert!(identity.is_none() || answer.is_none());
        }

        #[test]
        fn a_hello_that_was_damaged_under_way_is_refused(at in any::<prop::sample::Index>(), byte in 1..=255u8) {
            let mut bytes = written(&MAGIC, &to_bytes(&identity()));
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
            prop_assert!(heard(&bytes).is_err());
        }
    }

    #[test]
    fn another_protocol_and_a_hello_without_end_are_refused() {
        let (peer, _) = heard(&written(&MAGIC, &to_bytes(&identity()))).unwrap();
        assert_eq!(peer, Some(identity()));
        let http = written(b"GET / HT", b"TP/1.1");
        assert!(matches!(heard(&http), Err(HelloError::Magic)));
        let endless = written(&MAGIC, &vec![0x81; HELLO_SIZE_MAX + 1]);
        assert!(matches!(
            heard(&endless),
            Err(HelloError::Frame(FrameError::TooLong(..)))
        ));
        // Nested as deeply as its size allows.
        let deep = written(&MAGIC, &vec![0x81; HELLO_SIZE_MAX]);
        assert!(matches!(heard(&deep), Ok((None, None))));
    }
}
