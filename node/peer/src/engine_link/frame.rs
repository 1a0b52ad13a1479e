//! One frame: a length (u32, big-endian) and one message. Both sides check the bound, in both
//! directions.

use prost::Message;
use std::io::{self, ErrorKind, Read, Write};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of one message. A picture is the largest; a longer one is refused by whoever meets it
/// first.
pub const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a frame was not carried.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The message is longer than the bound.
    #[error("frame of {0} bytes, but at most {FRAME_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// The bytes are no message of engine.v1.
    #[error("frame is no engine message: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// The pipe ended within a frame.
    #[error("pipe ended within a frame")]
    Torn,
    /// The pipe failed.
    #[error("pipe failed: {0}")]
    Pipe(io::Error),
}

/// Writes one message and flushes it.
///
/// # Errors
/// [`FrameError::TooLong`] before anything is written; [`FrameError::Pipe`] when the reader is
/// gone.
pub fn write_frame(pipe: &mut impl Write, message: &impl Message) -> Result<(), FrameError> {
    let frame = encode(message)?;
    pipe.write_all(&frame).and_then(|()| pipe.flush()).map_err(FrameError::Pipe)
}

/// Reads one message; none at the end of the pipe.
///
/// # Errors
/// As [`FrameError`] tells; the pipe is of no use afterwards.
pub fn read_frame<M: Message + Default>(pipe: &mut impl Read) -> Result<Option<M>, FrameError> {
    let mut head = [0; 4];
    // The first byte apart, to tell an end between frames from one within.
    let first = loop {
        match pipe.read(&mut head[..1]) {
            Ok(count) => break count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(FrameError::Pipe(error)),
        }
    };
    if first == 0 {
        return Ok(None);
    }
    pipe.read_exact(&mut head[1..]).map_err(torn)?;
    let mut body = vec![0; body_bytes(head)?];
    pipe.read_exact(&mut body).map_err(torn)?;
    Ok(Some(M::decode(body.as_slice())?))
}

/// Writes one message, as [`write_frame`].
///
/// # Errors
/// As [`write_frame`].
///
/// # Cancel safety
/// None: a dropped future may leave half a frame in the pipe.
pub async fn send_frame(
    pipe: &mut (impl AsyncWrite + Unpin),
    message: &impl Message,
) -> Result<(), FrameError> {
    let frame = encode(message)?;
    pipe.write_all(&frame).await.map_err(FrameError::Pipe)?;
    pipe.flush().await.map_err(FrameError::Pipe)
}

/// Reads one message, as [`read_frame`].
///
/// # Errors
/// As [`read_frame`].
///
/// # Cancel safety
/// None: a dropped future may have taken half a frame out of the pipe.
pub async fn receive_frame<M: Message + Default>(
    pipe: &mut (impl AsyncRead + Unpin),
) -> Result<Option<M>, FrameError> {
    let mut head = [0; 4];
    if pipe.read(&mut head[..1]).await.map_err(FrameError::Pipe)? == 0 {
        return Ok(None);
    }
    pipe.read_exact(&mut head[1..]).await.map_err(torn)?;
    let mut body = vec![0; body_bytes(head)?];
    pipe.read_exact(&mut body).await.map_err(torn)?;
    Ok(Some(M::decode(body.as_slice())?))
}

fn encode(message: &impl Message) -> Result<Vec<u8>, FrameError> {
    let bytes = message.encoded_len();
    if bytes > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(bytes));
    }
    let length = u32::try_from(bytes).expect("the bound of a frame fits into a u32");
    let mut frame = Vec::with_capacity(4 + bytes);
    frame.extend_from_slice(&length.to_be_bytes());
    message.encode(&mut frame).expect("a vector grows");
    Ok(frame)
}

/// Judges the announced length before any memory is taken for it.
fn body_bytes(head: [u8; 4]) -> Result<usize, FrameError> {
    let bytes = usize::try_from(u32::from_be_bytes(head)).expect("a u32 fits");
    if bytes > FRAME_BYTES_MAX { Err(FrameError::TooLong(bytes)) } else { Ok(bytes) }
}

fn torn(error: io::Error) -> FrameError {
    match error.kind() {
        ErrorKind::UnexpectedEof => FrameError::Torn,
        _ => FrameError::Pipe(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atelier_proto::engine::v1::{EngineRequest, Stop, engine_request::Request};

    fn stop(work: u64) -> EngineRequest {
        EngineRequest { request: Some(Request::Stop(Stop { work })) }
    }

    #[test]
    fn frames_follow_one_another_and_end_between() {
        let mut pipe = Vec::new();
        write_frame(&mut pipe, &stop(7)).expect("a vector takes all");
        write_frame(&mut pipe, &stop(8)).expect("a vector takes all");
        let mut pipe = pipe.as_slice();
        assert_eq!(read_frame(&mut pipe).expect("whole"), Some(stop(7)));
        assert_eq!(read_frame(&mut pipe).expect("whole"), Some(stop(8)));
        assert_eq!(read_frame::<EngineRequest>(&mut pipe).expect("ended"), None);
    }

    #[test]
    fn torn_long_and_malformed_frames_are_told_apart() {
        let check = |bytes: &[u8]| read_frame::<EngineRequest>(&mut &bytes[..]).expect_err("bad");
        assert!(matches!(check(&[0]), FrameError::Torn));
        assert!(matches!(check(&[0, 0, 0, 5, 1]), FrameError::Torn));
        assert!(matches!(check(&[4, 0, 0, 1]), FrameError::TooLong(0x0400_0001)));
        assert!(matches!(check(&[0, 0, 0, 1, 0xff]), FrameError::Malformed(_)));
    }

    #[tokio::test]
    async fn the_asynchronous_reader_agrees_with_the_blocking_one() {
        let mut pipe = Vec::new();
        send_frame(&mut pipe, &stop(7)).await.expect("a vector takes all");
        assert_eq!(read_frame(&mut pipe.as_slice()).expect("whole"), Some(stop(7)));
        assert_eq!(receive_frame(&mut pipe.as_slice()).await.expect("whole"), Some(stop(7)));
        let torn = receive_frame::<EngineRequest>(&mut &pipe[..pipe.len() - 1]).await;
        assert!(matches!(torn, Err(FrameError::Torn)));
    }
}
