//! A liar of the simulator on live streams: what reaches it is its cue, and what it says
//! is sent. It has no board and no chain here, so it asks neither.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use futures_util::future::select_all;
use quorate_consensus::wire::frame;
use quorate_consensus::{Choice, NodeId, Value};
use quorate_node::exchange::{RawError, RawSession};
use quorate_sim::liars::{self, Cue, LiarKind, Lie};

use super::Stage;
use crate::failure::{Failure, Outcome};
use crate::output::clock_ms;

/// Each liar tells its plainest lie, so that one run is like the next.
const DICE: u64 = 0;

/// One liar, and its streams to all the others.
pub(crate) struct Player<'a> {
    stage: &'a Stage,
    liar: Box<dyn liars::Liar>,
    streams: Vec<(NodeId, RawSession)>,
    wake: Option<Instant>,
}

impl Stage {
    /// The liar comes on, greets every node and does what it does unasked.
    ///
    /// # Errors
    /// When a node cannot be reached or refuses the liar.
    pub(crate) async fn enter(&self, kind: LiarKind) -> Outcome<Player<'_>> {
        let peers = self.honest.iter().map(|honest| honest.node_id.clone());
        let mut player = Player {
            stage: self,
            liar: kind.make(),
            streams: peers.zip(self.sessions().await?).collect(),
            wake: None,
        };
        player.cue(Cue::Start).await;
        for honest in &self.honest {
            let peer = &honest.node_id;
            player.cue(Cue::Met { peer }).await;
        }
        Ok(player)
    }
}

impl Player<'_> {
    /// Its client wants it to vote for a number.
    pub(crate) async fn ask(&mut self, number: u64) {
        let tx_id = &self.stage.tx_id;
        let choice = &Choice::from(Value::Number(number));
        self.cue(Cue::Asked { tx_id, choice }).await;
    }

    /// Every node ends its stream to the liar.
    ///
    /// # Errors
    /// When one of them goes on listening.
    pub(crate) async fn until_hung_up(self) -> Outcome {
        for (peer, session) in self.streams {
            session.ended().await.map_err(|e| {
                Failure::failed(format!("{peer} goes on listening to the liar: {e}"))
            })?;
        }
        Ok(())
    }

    /// Hears what the nodes say, and lies on, for as long as this is waited for.
    pub(crate) async fn listen(&mut self) -> Infallible {
        loop {
            let wake = self.wake;
            let woken = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                (place, heard) = next(&mut self.streams) => match heard {
                    Ok(body) => {
                        let peer = &self.streams[place].0.clone();
                        self.cue(Cue::Heard { peer, body: &body }).await;
                    }
                    Err(RawError::Ended(_)) => {
                        self.streams.remove(place);
                    }
                    Err(_) => {}
                },
                () = woken => {
                    self.wake = None;
                    self.cue(Cue::Wake).await;
                }
            }
        }
    }

    async fn cue(&mut self, cue: Cue<'_>) {
        let lies = {
            let stage = liars::Stage {
                me: self.stage.liar.node_id(),
                rules: &self.stage.rules,
                now_ms: clock_ms(),
                board: None,
                keys: &self.stage.liar,
                dice: DICE,
            };
            self.liar.cue(&stage, cue)
        };
        for lie in lies {
            self.tell(lie).await;
        }
    }

    /// Who has hung up has heard enough.
    async fn tell(&mut self, lie: Lie) {
        let stream_to = |to: &NodeId| {
            let mut streams = self.streams.iter();
            streams
                .find(|(peer, _)| peer == to)
                .map(|(_, stream)| stream)
        };
        match lie {
            Lie::Say { to, body } => {
                if let Some(stream) = stream_to(&to) {
                    let _ = stream.send(body).await;
                }
            }
            Lie::Garble { to, bytes } => {
                if let Some(stream) = stream_to(&to) {
                    let _ = stream.send_bytes(bytes).await;
                }
            }
            Lie::Wake { in_ms } => {
                let at = Instant::now() + Duration::from_millis(in_ms);
                self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
            }
            // The node owns the store, and the chain key is not among a trustee's keys.
            Lie::Propose { .. } | Lie::Transact { .. } => {}
        }
    }
}

/// What comes next, and on which stream.
async fn next(streams: &mut [(NodeId, RawSession)]) -> (usize, Result<frame::Body, RawError>) {
    if streams.is_empty() {
        return std::future::pending().await;
    }
    let heard = streams
        .iter_mut()
        .map(|(_, stream)| Box::pin(stream.receive()));
    let (heard, place, _) = select_all(heard).await;
    (place, heard)
}
