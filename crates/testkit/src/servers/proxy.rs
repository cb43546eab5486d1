//! A bad network between a client and a server, on demand.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::ground::free_port;

mod frames;

use frames::{Replies, Request, Requests};

/// How long a port may take until it is free again; the slowest machines are meant.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a [`Proxy`] treats its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Forwards.
    Forward,
    /// Forwards what it reads at once so much later, each way.
    Delay(Duration),
    /// Takes connections and bytes, and forwards nothing until told otherwise: then
    /// everything, late.
    Hang,
    /// Cuts its connections, and lets nobody connect.
    Refuse,
}

/// Forwards a port of 127.0.0.1 to another, as well or as badly as it is told.
///
/// It sees the messages of gRPC in plain text; of other protocols, it takes what a
/// client sends at once for a request. It has threads of its own, so that it works
/// while a test blocks.
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
}

struct Shared {
    to: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    way: Way,
    listens: bool,
    /// The proxy is dropped.
    done: bool,
    losing: Option<Losing>,
    losses: usize,
    links: Vec<Weak<Link>>,
    accepted: usize,
}

/// What is to be lost, once.
struct Losing {
    what: Lost,
    containing: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    Request,
    Reply,
}

/// One connection, with both its ends.
struct Link {
    client: TcpStream,
    server: TcpStream,
    closed: AtomicBool,
    /// The request whose reply is to be lost; from then on the client hears nothing.
    swallowed: Mutex<Option<Request>>,
}

impl Proxy {
    /// Listens on a free port and forwards to this port, of 127.0.0.1 both.
    pub fn to(port: u16) -> Self {
        let shared = Arc::new(Shared {
            to: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            state: Mutex::new(State {
                way: Way::Forward,
                listens: true,
                done: false,
                losing: None,
                losses: 0,
                links: Vec::new(),
                accepted: 0,
            }),
            changed: Condvar::new(),
        });
        let port = free_port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .unwrap_or_else(|error| panic!("port {port}: {error}"));
        let own = shared.clone();
        thread::spawn(move || own.listen(listener, port));
        Self { shared, port }
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where gRPC clients find it, as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on, for all connections; comes back when it is so.
    pub fn set(&self, way: Way) {
        let mut state = self.shared.lock();
        state.way = way;
        let listens = way != Way::Refuse;
        if !listens {
            state.cut();
        }
        self.shared.changed.notify_all();
        if state.listens && !listens {
            // Wakes whoever waits for a connection.
            let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        }
        let begun = Instant::now();
        while state.listens != listens {
            assert!(begun.elapsed() < PATIENCE, "port {} is not free", self.port);
            state = self.shared.wait(state, PATIENCE);
        }
    }

    /// Cuts all connections; new ones are treated as before.
    pub fn cut(&self) {
        self.shared.lock().cut();
        self.shared.changed.notify_all();
    }

    /// The next request that contains these bytes (none: any request) reaches
    /// the server and is answered; the answer is lost, and the connection cut. Other
    /// calls on that connection fail with it; so may the client's next one, for a
    /// client notices a cut late.
    pub fn lose_next_reply(&self, containing: &[u8]) {
        self.lose(Lost::Reply, containing);
    }

    /// The next request that contains these bytes (none: any request) does not
    /// reach the server, and its connection is cut. Who called cannot tell this from
    /// [`Self::lose_next_reply`].
    pub fn lose_next_request(&self, containing: &[u8]) {
        self.lose(Lost::Request, containing);
    }

    fn lose(&self, what: Lost, containing: &[u8]) {
        let containing = containing.to_owned();
        self.shared.lock().losing = Some(Losing { what, containing });
    }

    /// How many requests and replies were lost so far. It counts before the client
    /// notices.
    pub fn losses(&self) -> usize {
        self.shared.lock().losses
    }

    /// How many connections were taken so far.
    pub fn connections(&self) -> usize {
        self.shared.lock().accepted
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.done = true;
        state.cut();
        let listens = state.listens;
        drop(state);
        self.shared.changed.notify_all();
        if listens {
            let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        }
    }
}

impl State {
    fn cut(&mut self) {
        for link in self.links.drain(..) {
            if let Some(link) = link.upgrade() {
                link.close();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Takes connections until the proxy is dropped.
    fn listen(self: Arc<Self>, listener: TcpListener, port: u16) {
        let mut listener = Some(listener);
        loop {
            let accepted = match &listener {
                Some(listener) => listener.accept().ok(),
                None => None,
            };
            let mut state = self.lock();
            if state.done {
                return;
            }
            if state.way == Way::Refuse {
                listener = None;
                state.listens = false;
                self.changed.notify_all();
                drop(self.wait(state, PATIENCE));
                continue;
            }
            if listener.is_none() {
                listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
                state.listens = listener.is_some();
                self.changed.notify_all();
                if listener.is_none() {
                    drop(self.wait(state, Duration::from_millis(20)));
                }
                continue;
            }
            let Some((client, _)) = accepted else {
                continue;
            };
            state.accepted += 1;
            drop(state);
            let own = self.clone();
            thread::spawn(move || own.connect(client));
        }
    }

    /// One connection, from its beginning to its end. (When the server is away, the
    /// client's connection is taken and closed.)
    fn connect(self: Arc<Self>, client: TcpStream) -> Option<()> {
        let server = TcpStream::connect_timeout(&self.to, PATIENCE).ok()?;
        for stream in [&client, &server] {
            stream.set_nodelay(true).ok()?;
        }
        let link = Arc::new(Link {
            client,
            server,
            closed: AtomicBool::new(false),
            swallowed: Mutex::new(None),
        });
        let mut state = self.lock();
        if state.done || state.way == Way::Refuse {
            return None;
        }
        state.links.retain(|link| link.strong_count() > 0);
        state.links.push(Arc::downgrade(&link));
        drop(state);
        let (shared, other) = (self.clone(), link.clone());
        thread::spawn(move || {
            shared.forward_replies(&other);
            other.close();
        });
        self.forward_requests(&link);
        Some(())
    }

    /// Until the client ends or the link is cut. A client that only ends its own half
    /// still gets its answers.
    fn forward_requests(&self, link: &Link) {
        let mut requests = Requests::default();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let bytes = match (&link.client).read(&mut buffer) {
                Ok(0) => break drop(link.server.shutdown(Shutdown::Write)),
                Ok(length) => &buffer[..length],
                Err(_) => break link.close(),
            };
            if !self.passes(link) {
                break;
            }
            match self.loses(requests.read(bytes)) {
                Some((Lost::Request, _)) => break link.close(),
                // Before the request goes on, so that no reply is faster.
                Some((Lost::Reply, request)) => *link.swallowed() = Some(request),
                None => {}
            }
            if (&link.server).write_all(bytes).is_err() {
                break link.close();
            }
        }
    }

    fn forward_replies(&self, link: &Link) {
        let mut replies = Replies::default();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = (&link.server).read(&mut buffer) {
            let bytes = &buffer[..length];
            if !self.passes(link) {
                return;
            }
            let answered = replies.read(bytes);
            match &*link.swallowed() {
                Some(request) => {
                    if request.stream.is_none_or(|at| answered.contains(&at)) {
                        self.lock().losses += 1;
                        return;
                    }
                }
                None => {
                    if (&link.client).write_all(bytes).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Comes back when these bytes may go on: with `false`, when they may not any more.
    fn passes(&self, link: &Link) -> bool {
        let begun = Instant::now();
        let mut state = self.lock();
        loop {
            if link.closed.load(Ordering::Acquire) {
                return false;
            }
            let left = match state.way {
                Way::Forward | Way::Refuse => return true,
                Way::Delay(delay) => delay.saturating_sub(begun.elapsed()),
                Way::Hang => PATIENCE,
            };
            if left.is_zero() {
                return true;
            }
            state = self.wait(state, left);
        }
    }

    /// Which of these requests is the one to be lost, or to lose its reply.
    fn loses(&self, requests: Vec<Request>) -> Option<(Lost, Request)> {
        let mut state = self.lock();
        let losing = state.losing.as_ref()?;
        let mut requests = requests.into_iter();
        let request = requests.find(|request| contains(&request.body, &losing.containing))?;
        let what = losing.what;
        state.losing = None;
        if what == Lost::Request {
            state.losses += 1;
        }
        Some((what, request))
    }
}

impl Link {
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for stream in [&self.client, &self.server] {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn swallowed(&self) -> MutexGuard<'_, Option<Request>> {
        self.swallowed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    part.is_empty() || body.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests;
