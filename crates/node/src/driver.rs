//! The loop around one engine. It takes what waits as one batch, reads the clock,
//! lets the engine handle each event, makes all that the batch must remember durable
//! in one commit, and only then carries out the rest of the effects, in order.

mod room;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use quorate_chain::Chain;
use quorate_consensus::statement::KeyRole;
use quorate_consensus::wire::{Goodbye, GoodbyeReason, MessageReceived};
use quorate_consensus::words::goodbye_word;
use quorate_coordinator::Coordinator;
use quorate_crypto::SigningKey;
use quorate_engine::{Answer, Effect, Engine, Event, Now, Reject, RequestId, StreamId};
use quorate_telemetry::Exporter;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{Instrument as _, Span};

use crate::alerts::Alerts;
use crate::clock::Clock;
use crate::exchange::{Admission, Enqueued, Queue, Roster};
use crate::faults::Faults;
use crate::feed::Feed;
use crate::health::beats::Loop;
use crate::journal::Journal;
use crate::mailbox::{Mailbox, Message, Received};
use crate::metrics::{Meter, number};
use crate::seen::SeenAudit;
use crate::told::tell;
use crate::traces::Traces;

pub(crate) use room::no_room;

/// The most messages in one batch.
const MOST_IN_A_BATCH: usize = 256;

/// What the driver carries effects out with.
pub(crate) struct Ports {
    pub(crate) coordinator: Arc<dyn Coordinator>,
    pub(crate) audit: Arc<SeenAudit>,
    pub(crate) chain: Arc<dyn Chain>,
    pub(crate) vote_key: Option<Arc<SigningKey>>,
    pub(crate) node_key: Arc<SigningKey>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) admission: Arc<Admission>,
    /// Shows direct messages to whoever watches.
    pub(crate) messages: broadcast::Sender<MessageReceived>,
    pub(crate) roster: Arc<Roster>,
    /// Takes finished spans away, if they are exported.
    pub(crate) exporter: Option<Exporter>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) alerts: Arc<Alerts>,
    pub(crate) faults: Faults,
}

/// What others may see of the engine without asking the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pulse {
    pub(crate) in_service: bool,
    pub(crate) revision: u64,
    /// The journal can be written.
    pub(crate) room: bool,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            in_service: false,
            revision: 0,
            room: true,
        }
    }
}

/// Why the driver ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was asked to.
    Shutdown,
    /// A fault that a test injected.
    Crash,
    /// Something that must not fail has failed: the journal, mostly.
    Failed(String),
}

pub(crate) struct Driver {
    engine: Engine,
    journal: Arc<Mutex<Journal>>,
    clock: Clock,
    ports: Ports,
    traces: Traces,
    mailbox: Mailbox,
    inbox: mpsc::Receiver<Message>,
    streams: HashMap<StreamId, Queue>,
    clients: HashMap<RequestId, oneshot::Sender<Result<Answer, Reject>>>,
    operators: HashMap<RequestId, oneshot::Sender<Result<(), Reject>>>,
    /// Events that carrying out effects gave, before anything from outside.
    own: VecDeque<(Event, Span)>,
    /// What came while the journal could not be written.
    held: VecDeque<Message>,
    fed: Vec<oneshot::Sender<u64>>,
    pulse: watch::Sender<Pulse>,
    warned: Option<String>,
}

impl Driver {
    pub(crate) fn new(
        engine: Engine,
        journal: Arc<Mutex<Journal>>,
        clock: Clock,
        ports: Ports,
        traces: Traces,
        (mailbox, inbox): (Mailbox, mpsc::Receiver<Message>),
        pulse: watch::Sender<Pulse>,
    ) -> Self {
        Self {
            engine,
            journal,
            clock,
            ports,
            traces,
            mailbox,
            inbox,
            streams: HashMap::new(),
            clients: HashMap::new(),
            operators: HashMap::new(),
            own: VecDeque::new(),
            held: VecDeque::new(),
            fed: Vec::new(),
            pulse,
            warned: None,
        }
    }

    /// Runs until it is told to stop or must.
    pub(crate) async fn run(mut self) -> Stopped {
        let mut batch = Vec::with_capacity(MOST_IN_A_BATCH);
        loop {
            self.ports.faults.pass(Loop::Driver).await;
            self.gather(&mut batch).await;
            let size = number(batch.len() + self.own.len());
            self.ports.meter.batch_size.of(["driver"]).observe(size);
            let now = self.clock.now();
            let mut effects = Vec::new();
            while let Some((event, span)) = self.own.pop_front() {
                self.handle(now, event, span, &mut effects);
            }
            let mut stop = None;
            for message in batch.drain(..) {
                if let Some(stopped) = self.take(now, message, &mut effects) {
                    stop.get_or_insert(stopped);
                }
            }
            if self.engine.next_wake().is_some_and(|at| at <= now.mono_ms) {
                self.handle(now, Event::Tick, Span::current(), &mut effects);
            }
            if let Err(stopped) = self.carry_out(effects).await {
                return self.end(stopped);
            }
            self.traces.waiting(&self.engine, now);
            self.export();
            for fed in self.fed.drain(..) {
                // A follower that went away needs no answer.
                let _ = fed.send(self.engine.revision());
            }
            self.publish(now);
            if let Some(stopped) = stop {
                return self.end(stopped);
            }
        }
    }

    /// Waits for a first message, the engine's alarm, or own events, and takes what
    /// else is there.
    async fn gather(&mut self, batch: &mut Vec<Message>) {
        if Self::take_held(&mut self.held, batch, MOST_IN_A_BATCH) {
            return;
        }
        if !self.own.is_empty() {
            while batch.len() < MOST_IN_A_BATCH
                && let Ok(message) = self.inbox.try_recv()
            {
                batch.push(message);
            }
            return;
        }
        let wakes = [self.engine.next_wake(), self.traces.next_wake()];
        match wakes.into_iter().flatten().min() {
            None => {
                self.inbox.recv_many(batch, MOST_IN_A_BATCH).await;
            }
            Some(at) => {
                let alarm = tokio::time::sleep_until(self.clock.at(at));
                tokio::select! {
                    biased;
                    _ = self.inbox.recv_many(batch, MOST_IN_A_BATCH) => {}
                    () = alarm => {}
                }
            }
        }
    }

    fn handle(&mut self, now: Now, event: Event, span: Span, effects: &mut Vec<(Effect, Span)>) {
        let began = Instant::now();
        let given = span.in_scope(|| self.engine.handle(now, event));
        self.traces.handled(began, Instant::now());
        effects.extend(given.into_iter().map(|effect| (effect, span.clone())));
    }

    fn take(
        &mut self,
        now: Now,
        message: Message,
        effects: &mut Vec<(Effect, Span)>,
    ) -> Option<Stopped> {
        match message {
            Message::Event(event, span) => {
                match &*event {
                    Event::StreamDown { stream } => {
                        self.streams.remove(stream);
                        self.traces.stream_down(*stream);
                        self.ports.meter.stream_down(*stream);
                    }
                    Event::Abandon { request } => {
                        self.clients.remove(request);
                        self.operators.remove(request);
                        self.traces.answered(*request, None);
                    }
                    Event::Proposed { ticket, result } => self.traces.proposed(*ticket, result),
                    Event::Audit { ticket, answer } => self.traces.audit_answered(*ticket, answer),
                    Event::Chain { ticket, answer } => self.traces.chain_answered(*ticket, answer),
                    _ => {}
                }
                self.handle(now, *event, span, effects);
            }
            Message::Submit(handover, span) => {
                let request = handover.request;
                self.clients.insert(request, handover.answer);
                let submit = handover.submit;
                let (arrived, link) = (handover.arrived, handover.link);
                self.traces.submitted(request, &submit, arrived, link);
                self.handle(now, Event::Submit { request, submit }, span, effects);
                self.traces.checked(request);
            }
            Message::Operate(request, act, answer) => {
                self.operators.insert(request, answer);
                let act = *act;
                self.handle(
                    now,
                    Event::Operate { request, act },
                    Span::current(),
                    effects,
                );
            }
            Message::Frame(received) => {
                let Received {
                    stream,
                    frame,
                    arrival,
                    span,
                    room: _taken,
                } = *received;
                self.traces.frame(stream, &frame, arrival);
                self.handle(now, Event::Frame { stream, frame }, span, effects);
            }
            Message::StreamUp(up) => {
                self.ports.meter.stream_up(up.stream, &up.peer, &up.queue);
                self.streams.insert(up.stream, up.queue);
                self.traces.stream_up(up.stream, &up.peer);
                let event = Event::StreamUp {
                    stream: up.stream,
                    peer: up.peer,
                    own_certificate: up.own_certificate,
                    peer_certificate: up.peer_certificate,
                    challenge: up.challenge,
                };
                self.handle(now, event, Span::current(), effects);
            }
            Message::Entries(entries, arrival, fed) => {
                self.traces.entries(arrival);
                self.handle(now, Event::Entries { entries }, Span::current(), effects);
                self.fed.push(fed);
            }
            Message::Alert(alert) => {
                self.traces.alerted(&alert);
                self.ports.alerts.engine(&alert);
            }
            Message::Look(look) => look(&self.engine, now),
            Message::Goodbye(done) => self.goodbye(done),
            Message::Waiting(answer) => {
                self.clients.retain(|_, client| !client.is_closed());
                let _ = answer.send(self.clients.len());
            }
            Message::Stop => return Some(Stopped::Shutdown),
            Message::Fatal(why) => return Some(Stopped::Failed(why)),
        }
        None
    }

    /// Closes all streams, because the node stops.
    fn goodbye(&mut self, done: oneshot::Sender<()>) {
        for (_, queue) in self.streams.drain() {
            queue.close(Goodbye {
                reason: GoodbyeReason::Shutdown.into(),
                detail: "this node stops".to_owned(),
            });
        }
        // Whoever asked may have gone on without.
        let _ = done.send(());
    }

    /// Carries effects out: first all that must be durable, in one commit, then the
    /// rest in order.
    async fn carry_out(&mut self, effects: Vec<(Effect, Span)>) -> Result<(), Stopped> {
        let mut records = Vec::new();
        let mut rest = Vec::new();
        let mut crashed = false;
        for (effect, span) in effects {
            match effect {
                Effect::Persist(_) if crashed => {}
                Effect::Persist(record) => {
                    let effect = Effect::Persist(record);
                    crashed = self.ports.faults.crashes(&effect);
                    if let (false, Effect::Persist(record)) = (crashed, effect) {
                        records.push(record);
                    }
                }
                other => rest.push((other, span)),
            }
        }
        self.commit(records).await?;
        if crashed {
            return Err(Stopped::Crash);
        }
        for (effect, span) in rest {
            if self.ports.faults.crashes(&effect) {
                return Err(Stopped::Crash);
            }
            self.effect(effect, span);
        }
        Ok(())
    }

    fn effect(&mut self, effect: Effect, span: Span) {
        match effect {
            // Committed before anything else.
            Effect::Persist(_) => {}
            Effect::Lookup { ticket, tx_id } => {
                let journal = self.journal.clone();
                let mailbox = self.mailbox.clone();
                let look_up = async move {
                    let found = tokio::task::spawn_blocking(move || {
                        let journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
                        journal.lookup(&tx_id)
                    });
                    let message = match found.await {
                        Ok(Ok(entry)) => {
                            let event = Box::new(Event::Found { ticket, entry });
                            Message::Event(event, Span::current())
                        }
                        Ok(Err(error)) => Message::Fatal(error.to_string()),
                        Err(error) => Message::Fatal(error.to_string()),
                    };
                    let _ = mailbox.send(message).await;
                };
                tokio::spawn(look_up.instrument(span));
            }
            Effect::Sign {
                ticket,
                key,
                domain,
                statement,
            } => {
                if key == KeyRole::Vote {
                    self.traces.guarded(&statement);
                }
                let key = match key {
                    KeyRole::Vote => self.ports.vote_key.as_ref(),
                    KeyRole::Node => Some(&self.ports.node_key),
                };
                let result = key
                    .map(|key| key.sign(domain, &statement))
                    .ok_or_else(|| "this node does not hold the vote key".to_owned());
                self.own.push_back((Event::Signed { ticket, result }, span));
            }
            Effect::Propose { ticket, op, now_ms } => {
                let coordinator = self.ports.coordinator.clone();
                self.traces.proposes(ticket, &op);
                self.ask(span, async move {
                    let result = coordinator.propose(op, now_ms).await;
                    Event::Proposed { ticket, result }
                });
            }
            Effect::ReadHead { ticket } => {
                let coordinator = self.ports.coordinator.clone();
                self.ask(span, async move {
                    let result = coordinator.head().await.map_err(|e| e.to_string());
                    Event::Head { ticket, result }
                });
            }
            Effect::Chain { ticket, ask } => {
                let chain = self.ports.chain.clone();
                self.traces.asks_chain(ticket, &ask, self.engine.board());
                self.ask(span, async move {
                    let answer = chain.ask(ask).await;
                    Event::Chain { ticket, answer }
                });
            }
            Effect::Audit { ticket, ask } => {
                let audit = self.ports.audit.clone();
                self.traces.asks_audit(ticket, &ask);
                self.ask(span, async move {
                    let answer = audit.ask(ask).await;
                    Event::Audit { ticket, answer }
                });
            }
            Effect::Send { stream, frame } => self.send(stream, frame, span),
            Effect::Close { stream, goodbye } => {
                self.traces.closes(stream, &goodbye);
                if let Some(queue) = self.streams.remove(&stream) {
                    let reason = goodbye_word(goodbye.reason());
                    tracing::info!(stream = stream.0, reason, detail = %goodbye.detail, "stream.closed");
                    queue.close(goodbye);
                }
            }
            Effect::Reach { node_id, address } => self.ports.roster.learn(node_id, address),
            Effect::Admit { node_id, welcome } => self.ports.admission.set(&node_id, welcome),
            Effect::Answer { request, result } => {
                // Who is told no more was told before, and counted.
                if let Some(client) = self.clients.remove(&request) {
                    self.traces
                        .answered(request, result.as_ref().as_ref().err());
                    self.ports.meter.answered(&result);
                    // The client may have gone; its vote is where it is.
                    let _ = client.send(*result);
                }
            }
            Effect::Operated { request, result } => {
                if let Some(operator) = self.operators.remove(&request) {
                    // The operator may have gone; its act is where it is.
                    let _ = operator.send(result);
                }
            }
            Effect::Message { from, data } => {
                let bytes = data.len();
                // A peer that floods must not fill the log, too.
                tracing::debug!(node_id = %from, bytes, "message.received");
                // Whoever watches sees it; nobody need.
                let _ = self.ports.messages.send(MessageReceived {
                    node_id: from.to_string(),
                    data,
                    time_ms: self.clock.wall_ms(),
                });
            }
            Effect::Believed { entries } => {
                self.ports.meter.believed(&entries);
                self.ports.alerts.believed(&entries);
                let cluster_id = self.engine.board().rules().cluster_id();
                entries.iter().for_each(|entry| tell(&cluster_id, entry));
                let (board, now) = (self.engine.board(), self.clock.now());
                let in_service = self.engine.is_in_service();
                self.traces.believed(&entries, board, now, in_service);
                self.ports.feed.push(entries);
            }
            Effect::Alert(alert) => {
                self.traces.alerted(&alert);
                self.ports.alerts.engine(&alert);
            }
        }
    }

    /// Asks somebody in a task of its own; the answer comes back as an event.
    fn ask(&self, span: Span, question: impl Future<Output = Event> + Send + 'static) {
        let mailbox = self.mailbox.clone();
        let ask = async move {
            let event = question.await;
            // A driver that is gone needs no answers.
            let _ = mailbox.event(event).await;
        };
        tokio::spawn(ask.instrument(span));
    }

    fn send(&mut self, stream: StreamId, frame: quorate_consensus::wire::Frame, span: Span) {
        let Some(queue) = self.streams.get(&stream) else {
            return;
        };
        match queue.offer(frame) {
            Enqueued::Yes => {}
            Enqueued::Dropped => {
                self.ports.meter.gossip_messages_dropped.inc();
            }
            Enqueued::NowFull => {
                self.ports.meter.gossip_messages_dropped.inc();
                tracing::warn!(stream = stream.0, "stream.queue_full");
                self.own.push_back((Event::QueueFull { stream }, span));
            }
            // The session says StreamDown by itself.
            Enqueued::Gone => {}
        }
    }

    /// Hands finished spans over; nobody waits for where they go.
    fn export(&mut self) {
        for spans in self.traces.take_ready() {
            if let Some(exporter) = &self.ports.exporter {
                exporter.offer(spans);
            }
        }
    }

    fn publish(&mut self, now: Now) {
        let pulse = Pulse {
            in_service: self.engine.is_in_service(),
            revision: self.engine.revision(),
            room: true,
        };
        self.ports.roster.connected(self.engine.connected());
        let was = self.pulse.borrow().in_service;
        if pulse.in_service != was {
            tracing::info!(in_service = pulse.in_service, "node.service");
        }
        self.pulse.send_if_modified(|old| {
            let changed = *old != pulse;
            *old = pulse;
            changed
        });
        let stopped = self.engine.signing_stopped(now);
        if stopped.is_some() != self.warned.is_some() {
            match &stopped {
                Some(why) => tracing::error!(%why, "node.signing_stopped"),
                None => tracing::info!("node.signing_resumed"),
            }
            self.warned = stopped;
        }
    }

    fn end(&self, stopped: Stopped) -> Stopped {
        match &stopped {
            Stopped::Failed(why) => {
                tracing::error!(%why, "node.failed: it signs nothing more and stops");
            }
            Stopped::Crash => tracing::warn!("node.crash: a fault was injected"),
            Stopped::Shutdown => {}
        }
        stopped
    }
}
