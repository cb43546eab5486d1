//! What reaches the driver, and how.

use std::time::{Duration, Instant};

use quorate_consensus::NodeId;
use quorate_consensus::wire::{BoardEntry, Frame};
use quorate_engine::{
    Alert, Answer, Engine, Event, Now, OperatorAct, Reject, RequestId, StreamId, Submit,
};
use quorate_telemetry::TraceContext;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tracing::Span;

use crate::driver::Pulse;
use crate::exchange::Queue;
use crate::traces::Arrival;

/// How many messages wait for the driver before their senders do.
pub(crate) const CAPACITY: usize = 4096;

/// Between two looks at the engine while something is awaited: not all of it changes the
/// board, streams that come and go do not, nor an act that is not complete.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A look at the engine, taken between two events.
pub(crate) type Look = Box<dyn FnOnce(&Engine, Now) + Send>;

/// A stream that came up.
pub(crate) struct StreamUp {
    pub(crate) stream: StreamId,
    pub(crate) peer: NodeId,
    pub(crate) own_certificate: [u8; 32],
    pub(crate) peer_certificate: [u8; 32],
    pub(crate) challenge: [u8; 32],
    pub(crate) queue: Queue,
}

/// A client's vote on its way in.
pub(crate) struct Handover {
    pub(crate) request: RequestId,
    pub(crate) submit: Submit,
    pub(crate) answer: oneshot::Sender<Result<Answer, Reject>>,
    /// When the call came in.
    pub(crate) arrived: Instant,
    /// What the caller says it belongs to.
    pub(crate) link: Option<TraceContext>,
}

/// A frame of a stream on its way in.
pub(crate) struct Received {
    pub(crate) stream: StreamId,
    pub(crate) frame: Frame,
    pub(crate) arrival: Arrival,
    pub(crate) span: Span,
    /// Its part of what may wait of its stream, until this is dropped.
    pub(crate) room: OwnedSemaphorePermit,
}

/// One message to the driver. Large ones are boxed: the queue holds many.
pub(crate) enum Message {
    /// An event for the engine, and the span it belongs to.
    Event(Box<Event>, Span),
    /// A vote of a client.
    Submit(Box<Handover>, Span),
    /// An operator acts.
    Operate(
        RequestId,
        Box<OperatorAct>,
        oneshot::Sender<Result<(), Reject>>,
    ),
    /// A frame of a stream.
    Frame(Box<Received>),
    /// A stream came up.
    StreamUp(Box<StreamUp>),
    /// The next entries, and when they were read; answered with the revision that the
    /// engine stands at then.
    Entries(Vec<BoardEntry>, Arrival, oneshot::Sender<u64>),
    /// Something that an operator must hear of and that the engine does not see.
    Alert(Alert),
    /// A look at the engine.
    Look(Look),
    /// Say goodbye on all streams.
    Goodbye(oneshot::Sender<()>),
    /// How many clients wait?
    Waiting(oneshot::Sender<usize>),
    /// End.
    Stop,
    /// End at once, and say why: something that must not fail has.
    Fatal(String),
}

/// The driver is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping")]
pub(crate) struct Gone;

/// Where messages go in; it waits when the driver is behind.
#[derive(Clone)]
pub(crate) struct Mailbox(mpsc::Sender<Message>);

impl Mailbox {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (Self(sender), receiver)
    }

    /// How many messages wait for the driver.
    pub(crate) fn waiting(&self) -> usize {
        self.0.max_capacity() - self.0.capacity()
    }

    pub(crate) async fn send(&self, message: Message) -> Result<(), Gone> {
        self.0.send(message).await.map_err(|_| Gone)
    }

    /// An event, in the span that is current now.
    pub(crate) async fn event(&self, event: Event) -> Result<(), Gone> {
        self.send(Message::Event(Box::new(event), Span::current()))
            .await
    }

    /// Looks at the engine.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine, Now) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (sender, receiver) = oneshot::channel();
        let look: Look = Box::new(move |engine, now| {
            // Whoever asked may have gone; then nobody needs the answer.
            let _ = sender.send(look(engine, now));
        });
        self.send(Message::Look(look)).await?;
        receiver.await.map_err(|_| Gone)
    }

    /// Looks at the engine until that gives something: after every change that the pulse
    /// tells of, and every [`LOOK_EVERY`] besides.
    pub(crate) async fn until<T: Send + 'static>(
        &self,
        pulse: &watch::Receiver<Pulse>,
        look: impl Fn(&Engine) -> Option<T> + Clone + Send + 'static,
    ) -> Result<T, Gone> {
        let mut pulse = pulse.clone();
        loop {
            pulse.borrow_and_update();
            let look = look.clone();
            if let Some(found) = self.look(move |engine, _| look(engine)).await? {
                return Ok(found);
            }
            if let Ok(Err(_)) = tokio::time::timeout(LOOK_EVERY, pulse.changed()).await {
                return Err(Gone);
            }
        }
    }

    /// Asks something that is answered through a channel.
    pub(crate) async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<T>) -> Message,
    ) -> Result<T, Gone> {
        let (sender, receiver) = oneshot::channel();
        self.send(message(sender)).await?;
        receiver.await.map_err(|_| Gone)
    }
}
