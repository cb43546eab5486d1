//! With a server that gives back what it gets.

use std::io::ErrorKind;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// Gives back what it gets, and tells the test.
struct Echo {
    port: u16,
    got: Receiver<Vec<u8>>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (tell, got) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, tell) = (stream.expect("a connection"), tell.clone());
                thread::spawn(move || serve(&stream, &tell));
            }
        });
        Self { port, got }
    }

    fn next(&self) -> Vec<u8> {
        self.got.recv_timeout(PATIENCE).expect("something comes")
    }
}

fn serve(mut stream: &TcpStream, tell: &Sender<Vec<u8>>) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        // The test may be over.
        let _ = tell.send(buffer[..length].to_owned());
        let _ = stream.write_all(&buffer[..length]);
    }
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", proxy.port())).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream
}

/// What comes back for this; nothing, when the connection is cut.
fn say(mut stream: &TcpStream, words: &[u8]) -> Vec<u8> {
    let mut answer = vec![0; words.len()];
    let said = stream.write_all(words);
    match said.and_then(|()| stream.read_exact(&mut answer)) {
        Ok(()) => answer,
        Err(error) => {
            let hangs = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!hangs, "it hangs");
            Vec::new()
        }
    }
}

#[test]
fn it_forwards_both_ways_and_counts() {
    let echo = Echo::start();
    let proxy = Proxy::to(echo.port);
    let (one, other) = (connect(&proxy), connect(&proxy));
    assert_eq!(say(&one, b"a"), b"a");
    assert_eq!(say(&other, b"b"), b"b");
    assert_eq!(say(&one, b"c"), b"c");
    assert_eq!((proxy.connections(), proxy.losses()), (2, 0));
    // Who only listens any more still gets the answers.
    one.shutdown(Shutdown::Write).expect("open");
    let mut rest = Vec::new();
    (&one).read_to_end(&mut rest).expect("the end");
}

#[test]
fn a_lost_reply_was_to_a_request_that_arrived() {
    let echo = Echo::start();
    let proxy = Proxy::to(echo.port);
    let stream = connect(&proxy);
    proxy.lose_next_reply(b"this");
    assert_eq!(say(&stream, b"not that"), b"not that");
    assert_eq!(echo.next(), b"not that");
    assert_eq!(say(&stream, b"but this one"), b"");
    assert_eq!((echo.next(), proxy.losses()), (b"but this one".into(), 1));
    assert_eq!(say(&connect(&proxy), b"this again"), b"this again");
    assert_eq!(proxy.losses(), 1);
}

#[test]
fn a_lost_request_arrives_nowhere() {
    let echo = Echo::start();
    let proxy = Proxy::to(echo.port);
    let stream = connect(&proxy);
    proxy.lose_next_request(b"");
    assert_eq!(say(&stream, b"this"), b"");
    assert_eq!(proxy.losses(), 1);
    assert_eq!(say(&connect(&proxy), b"that"), b"that");
    assert_eq!(echo.next(), b"that");
}

#[test]
fn refused_connections_are_cut_and_welcome_again() {
    let echo = Echo::start();
    let proxy = Proxy::to(echo.port);
    let stream = connect(&proxy);
    assert_eq!(say(&stream, b"a"), b"a");
    for _ in 0..3 {
        proxy.set(Way::Refuse);
        assert_eq!(say(&stream, b"b"), b"");
        let refused = TcpStream::connect(("127.0.0.1", proxy.port()));
        let refused = refused.expect_err("it does not listen");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        proxy.set(Way::Forward);
        assert_eq!(say(&connect(&proxy), b"c"), b"c");
    }
}

#[test]
fn what_hangs_arrives_in_the_end() {
    let echo = Echo::start();
    let proxy = Proxy::to(echo.port);
    let mut stream = connect(&proxy);
    proxy.set(Way::Hang);
    stream.write_all(b"late").expect("it takes bytes");
    let short = Some(Duration::from_millis(200));
    stream.set_read_timeout(short).expect("set");
    let mut answer = [0; 4];
    let nothing = stream.read_exact(&mut answer).expect_err("it hangs");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    assert!(echo.got.try_recv().is_err());
    proxy.set(Way::Forward);
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.read_exact(&mut answer).expect("it goes on");
    assert_eq!(&answer, b"late");
    // Who hangs can be cut.
    proxy.set(Way::Hang);
    stream.write_all(b"more").expect("it takes bytes");
    proxy.cut();
    assert_eq!(stream.read(&mut answer).unwrap_or(0), 0);
}

#[test]
fn a_delay_is_felt_each_way() {
    let echo = Echo::start();
    let proxy = Proxy::to(echo.port);
    let delay = Duration::from_millis(60);
    proxy.set(Way::Delay(delay));
    let stream = connect(&proxy);
    let begun = Instant::now();
    assert_eq!(say(&stream, b"a"), b"a");
    assert!(begun.elapsed() >= 2 * delay);
}

#[test]
fn a_dropped_proxy_is_gone() {
    let echo = Echo::start();
    let proxy = Proxy::to(echo.port);
    let (port, stream) = (proxy.port(), connect(&proxy));
    assert_eq!(say(&stream, b"a"), b"a");
    drop(proxy);
    assert_eq!(say(&stream, b"b"), b"");
    // Its thread takes a moment to close the port; nobody is served meanwhile.
    if let Ok(late) = TcpStream::connect(("127.0.0.1", port)) {
        assert_eq!(say(&late, b"c"), b"");
    }
}
