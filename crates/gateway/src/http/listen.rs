//! Connections: taken in, given a TLS handshake where there is a certificate, and answered with
//! HTTP/1.1. Each has a task of its own, so that none waits for a slow one. Nothing here knows what
//! is asked.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;

use super::forwarded::{Carried, Peer};
use super::stopped;
use crate::tls::Certificates;

/// Connections that are open at the same time. More wait in the queue of the operating system.
const CONNECTIONS_MAX: usize = 10_000;

/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// How long the head of a request may take, and a connection may be idle before it. Longer than the
/// minute for which proxies keep theirs, so that none sends into a connection that is being closed.
const HEAD_MAX: Duration = Duration::from_secs(75);

/// How long the head of a request may be, and how much of what follows is read ahead: what a connection
/// can make us keep. The longest that a browser or a proxy sends is a quarter of it.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How long nothing is taken in when the operating system refuses, as it does without free files.
const REST: Duration = Duration::from_secs(1);

/// How much of a plain request to a TLS port is read before it is told so.
const PLAIN_BYTES_MAX: u64 = 64 * 1024;

/// What a client hears that speaks plain HTTP to a TLS port.
const SPEAK_HTTPS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 68\r\n\
Connection: close\r\n\r\nThis port speaks https: write https:// in place of http:// and retry";

/// What a listener speaks.
#[derive(Clone)]
pub enum Door {
    /// HTTP, behind a proxy or on this machine.
    Plain,
    /// HTTPS, with this certificate.
    Tls(Arc<Certificates>),
}

/// What all connections of a listener share.
struct Shared {
    door: Door,
    router: Router,
    stop: watch::Receiver<bool>,
}

/// Answers with `router` until `stop` says so, then lets the requests under way finish. Every request
/// carries its [`Peer`].
///
/// # Errors
/// None today; a listener that refuses for a while is asked again.
pub async fn serve(listener: TcpListener, door: Door, router: Router, stop: watch::Receiver<bool>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let shared = Arc::new(Shared { door, router, stop: stop.clone() });
    let mut open = JoinSet::new();
    let mut stopping = pin!(stopped(stop));
    loop {
        let place = tokio::select! {
            Ok(place) = Arc::clone(&places).acquire_owned() => place,
            () = &mut stopping => break,
        };
        let (stream, peer) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = &mut stopping => break,
        };
        let shared = Arc::clone(&shared);
        open.spawn(async move {
            attend(stream, peer, &shared).await;
            drop(place);
        });
        // Those that ended leave nothing behind.
        while open.try_join_next().is_some() {}
    }
    drop(listener);
    while open.join_next().await.is_some() {}
    Ok(())
}

/// The next connection.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be taken in at this moment; are there too few file descriptors?");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// The client went away before it was taken in.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

async fn attend(stream: TcpStream, peer: SocketAddr, shared: &Shared) {
    // Small answers and events go out at once.
    let _ = stream.set_nodelay(true);
    let address = peer.ip();
    match &shared.door {
        Door::Plain => answer(stream, Peer { address, carried: Carried::Http }, shared).await,
        Door::Tls(certificates) => {
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(HANDSHAKE_MAX, shake_hands(stream, certificates)) => shaken,
                () = stopped(shared.stop.clone()) => return,
            };
            match shaken {
                Ok(Ok(Some(stream))) => answer(stream, Peer { address, carried: Carried::Https }, shared).await,
                Ok(Ok(None)) => tracing::debug!(%address, "plain HTTP to the TLS port"),
                Ok(Err(error)) => tracing::debug!(%address, %error, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%address, "a TLS handshake took too long"),
            }
        }
    }
}

/// The stream as TLS; nothing, where the client speaks plain HTTP and was told so.
async fn shake_hands(mut stream: TcpStream, certificates: &Certificates) -> io::Result<Option<Box<TlsStream<TcpStream>>>> {
    let mut first = [0];
    // Every method of HTTP begins with a letter, and TLS with a byte that is none.
    if stream.peek(&mut first).await? == 1 && first.iter().all(u8::is_ascii_alphabetic) {
        tell_plain(&mut stream).await?;
        return Ok(None);
    }
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    // What costs something is done in one go, by as many at a time as there are threads; whoever then
    // does not go on keeps nobody.
    let stream = hello.into_stream(certificates.config()).await?;
    Ok(Some(Box::new(stream)))
}

/// Answers, and reads what the client still sends: closing at once would take the answer away.
async fn tell_plain(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(SPEAK_HTTPS).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(PLAIN_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer, shared: &Shared) {
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        shared.router.clone().oneshot(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stopped(shared.stop.clone()) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(address = %peer.address, %error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::time::Instant;

    use super::*;

    /// How long a client is kept that sends this and then nothing more.
    async fn kept(sent: &[u8]) -> (Duration, String) {
        let (mut client, server) = tokio::io::duplex(4_096);
        let (_stop, stop) = watch::channel(false);
        let router = Router::new().fallback(|| async { "answered" });
        let shared = Shared { door: Door::Plain, router, stop };
        client.write_all(sent).await.unwrap();
        let begun = Instant::now();
        answer(server, Peer { address: IpAddr::from([192, 0, 2, 1]), carried: Carried::Http }, &shared).await;
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        (begun.elapsed(), heard)
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused_before_it_fills_the_memory() {
        let (mut client, server) = tokio::io::duplex(4_096);
        let (_stop, stop) = watch::channel(false);
        let router = Router::new().fallback(|| async { "answered" });
        let shared = Shared { door: Door::Plain, router, stop };
        let endless = async {
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ").await.unwrap();
            let mut sent = 0;
            // Until the other side closes.
            while client.write_all(&[b'a'; 1_024]).await.is_ok() {
                sent += 1_024;
            }
            sent
        };
        let peer = Peer { address: IpAddr::from([192, 0, 2, 1]), carried: Carried::Http };
        let (sent, ()) = tokio::join!(endless, answer(server, peer, &shared));
        assert!((HEAD_BYTES_MAX / 2..2 * HEAD_BYTES_MAX).contains(&sent), "{sent}");
    }

    // Tokio's clock stands still but for what is waited for, so these are the limits themselves.
    #[tokio::test(start_paused = true)]
    async fn nobody_keeps_a_connection_by_saying_nothing() {
        for sent in ["", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
            let (kept, heard) = kept(sent.as_bytes()).await;
            assert_eq!(kept, HEAD_MAX, "after {sent:?}");
            assert!(!heard.contains("answered"), "{heard}");
        }
        let (kept, heard) = kept(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert_eq!(kept, HEAD_MAX, "idle after an answer");
        assert!(heard.ends_with("answered"), "{heard}");
    }
}
