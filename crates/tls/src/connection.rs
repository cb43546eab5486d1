//! One authenticated connection, incoming or outgoing, that can be ended from outside.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::identity::{Identity, Serial};
use crate::registry::Registration;

/// The bytes that every client of HTTP/2 begins with: its preface, and the head of its
/// settings. Once they are here, the server's pings find out who has fallen silent.
const FIRST_WORDS: usize = 24 + 9;

/// Who is at the other end. In a handler: `request.extensions().get::<PeerInfo>()`.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Tells the connections of this process apart.
    pub connection_id: u64,
    /// Whom the other end's certificate names.
    pub identity: Identity,
    /// BLAKE3-256 of the other end's certificate (DER).
    pub certificate_digest: [u8; 32],
    /// The other end's certificate's serial number.
    pub serial: Serial,
    /// BLAKE3-256 of the certificate (DER) that this end showed.
    pub local_certificate_digest: [u8; 32],
    /// Where the other end is.
    pub remote_addr: SocketAddr,
    /// Whether this end dialled.
    pub outgoing: bool,
    /// How the keys were agreed: "X25519MLKEM768" or "X25519".
    pub key_exchange: String,
    /// Ends the connection.
    pub cancel: CancellationToken,
}

/// An authenticated TLS connection. It ends, with an error, when its
/// [`cancel`](PeerInfo::cancel) token is cancelled.
pub struct Connection {
    io: TlsStream<TcpStream>,
    /// What was read before anybody asked, and how much of it was handed on.
    first: io::Cursor<Vec<u8>>,
    info: PeerInfo,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Until the other end has begun to speak: how many bytes of it are missing, and
    /// until when.
    awaited: Option<(usize, Pin<Box<Sleep>>)>,
    /// Leaves the registry when dropped.
    _registration: Registration,
}

impl Connection {
    pub(crate) fn new(
        io: TlsStream<TcpStream>,
        first: Vec<u8>,
        registration: Registration,
    ) -> Self {
        let info = registration.info().clone();
        Self {
            io,
            first: io::Cursor::new(first),
            cancelled: Box::pin(info.cancel.clone().cancelled_owned()),
            awaited: None,
            info,
            _registration: registration,
        }
    }

    /// One that came in: it ends unless the other end begins to speak in time.
    pub(crate) fn incoming(
        io: TlsStream<TcpStream>,
        registration: Registration,
        patience: Duration,
    ) -> Self {
        let deadline = Box::pin(tokio::time::sleep(patience));
        Self {
            awaited: Some((FIRST_WORDS, deadline)),
            ..Self::new(io, Vec::new(), registration)
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &PeerInfo {
        &self.info
    }

    /// Registers this task to be woken on cancellation, too.
    fn poll_alive(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cancelled.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "this node ended the connection",
            )),
            Poll::Pending => Ok(()),
        }
    }
}

impl Connection {
    /// Counts the bytes that came, until there are enough; also registers this task to
    /// be woken when it is too late for them.
    fn poll_first_words(&mut self, cx: &mut Context<'_>, came: usize) -> io::Result<()> {
        let Some((missing, deadline)) = &mut self.awaited else {
            return Ok(());
        };
        *missing = missing.saturating_sub(came);
        if *missing == 0 {
            self.awaited = None;
            return Ok(());
        }
        match deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client did not begin to speak HTTP/2",
            )),
            Poll::Pending => Ok(()),
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connection").field(&self.info).finish()
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_alive(cx)?;
        let read = self.first.position() as usize;
        let rest = self.first.get_ref().get(read..).unwrap_or_default();
        if !rest.is_empty() {
            let len = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..len]);
            self.first.set_position((read + len) as u64);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.poll_first_words(cx, buffer.filled().len() - before)?;
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_alive(cx)?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_alive(cx)?;
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_alive(cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Not refused after a cancellation: it is what ends the connection.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
