//! Reads the store: all of it once, then what changes; and puts right what somebody
//! else tampered with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::WatchResponse;
use quorate_consensus::{Rules, rules};
use quorate_keyspace::{Change, Guard, KeyValue, Past, Resume, Step, Taken, Write, names};

use super::connection::is_too_large;
use super::shared::Shared;
use super::translate;
use crate::api::StoreError;

/// The first and the longest pause after trouble.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// After how long a silence another member is tried when somebody waits: at first, and
/// at most.
const SILENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How often a store that is being tampered with is read before a node starts on it.
const READINGS: u32 = 5;

/// Reads everything, and makes sure that it is this cluster's.
pub(super) async fn first_reading(
    shared: &Arc<Shared>,
    patience: Duration,
) -> Result<(), StoreError> {
    let begun = Instant::now();
    let mut pause = PAUSE.0;
    let mut readings = 0;
    let taken = loop {
        match shared.connection.all().await {
            Ok((revision, all)) => {
                check_owner(shared, &all)?;
                let taken = shared.read_first(revision, all);
                readings += 1;
                // Whoever knows what is missing is putting it back at this moment: the
                // whole log is wanted, not what happens to be there.
                if taken.findings.is_empty() || readings == READINGS {
                    break taken;
                }
                taken
                    .findings
                    .iter()
                    .for_each(|finding| shared.tell(finding));
                mend(shared, taken.mending).await;
            }
            Err(error) if begun.elapsed() >= patience => return Err(error),
            // Every member gets its chance.
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    };
    let own = shared.rules();
    let mut mending = shared.publish(taken);
    let told = [
        (names::THRESHOLD, own.threshold()),
        (names::TOTAL_NODES, own.total()),
    ];
    mending.extend(told.map(|(key, number)| Step {
        guards: vec![Guard::Absent(key.into())],
        writes: vec![Write::put(key, number.to_string())],
    }));
    mend(shared, mending).await;
    Ok(())
}

/// Another cluster of the same name has rules of its own under the prefix.
fn check_owner(shared: &Shared, all: &[KeyValue]) -> Result<(), StoreError> {
    let own = shared.rules();
    let key = names::rules(own.epoch());
    if let Some(found) = all.iter().find(|kv| kv.key == key)
        && rules::digest_of(&found.value) != own.digest()
        && let Ok(other) = Rules::genesis(&found.value, shared.verifier())
    {
        return Err(StoreError::OtherCluster {
            found: other.cluster_id(),
            expected: own.cluster_id(),
        });
    }
    Ok(())
}

/// How patient the follower is.
struct Patience {
    /// The pause before it goes on after trouble.
    pause: Duration,
    /// A member that says nothing for so long is left when somebody waits. What it says
    /// may be large, and slow to arrive: each time in vain it is given longer.
    silence: Duration,
}

impl Patience {
    fn fresh() -> Self {
        Self {
            pause: PAUSE.0,
            silence: SILENCE.0,
        }
    }
}

/// Ends the handle when the follower ends, whatever ends it: nobody may wait for what is
/// never read.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Follows the store for as long as the handle lives.
pub(super) async fn run(shared: Arc<Shared>) {
    let _ends = Ends(Arc::clone(&shared));
    let mut patience = Patience::fresh();
    loop {
        let followed = follow(&shared, &mut patience).await;
        if let Err(error) = followed {
            tracing::debug!(%error, "etcd.follow");
        }
        if shared.done_for().is_some() {
            return;
        }
        shared.connection.turn();
        tokio::time::sleep(patience.pause).await;
        patience.pause = (patience.pause * 2).min(PAUSE.1);
    }
}

/// Follows one member until it fails, or must be read anew.
async fn follow(shared: &Arc<Shared>, patience: &mut Patience) -> Result<(), StoreError> {
    let mark = shared.reader().mark();
    let at = mark.revision();
    let then = shared.connection.at(names::HEAD, at).await?;
    match mark.resume(&then) {
        Resume::Watch => {}
        Resume::ReadAll => return read_all(shared).await,
        Resume::OlderCopy => return older_copy(shared).await,
    }
    mend(shared, Vec::new()).await;
    let mut stream = shared.connection.watch(at + 1).await?;
    let mut heard = Instant::now();
    loop {
        let answer = tokio::select! {
            answer = stream.message() => answer,
            () = shared.doubt.notified() => return Ok(()),
            () = shared.anew.notified() => {
                if heard.elapsed() < patience.silence {
                    continue;
                }
                patience.silence = (patience.silence * 2).min(SILENCE.1);
                return Ok(());
            }
        };
        let answer = match answer {
            // So much at once that it does not come through, and it would not the next
            // time either.
            Err(error) if is_too_large(&error) => return resume_without_changes(shared).await,
            answer => answer.map_err(|error| StoreError::Unavailable(error.to_string()))?,
        };
        let Some(answer) = answer else { return Ok(()) };
        heard = Instant::now();
        if answer.canceled() || answer.compact_revision() > 0 {
            tracing::info!(
                compacted = answer.compact_revision(),
                reason = answer.cancel_reason(),
                "etcd.read_anew"
            );
            return resume_without_changes(shared).await;
        }
        *patience = Patience::fresh();
        let mending = take(shared, &answer);
        if shared.done_for().is_some() {
            // Whose reading is not whole must put nothing right.
            return Ok(());
        }
        mend(shared, mending).await;
    }
}

/// Takes in what one answer says, transaction by transaction.
fn take(shared: &Arc<Shared>, answer: &WatchResponse) -> Vec<Step> {
    let prefix = shared.connection.prefix();
    let changes = answer
        .events()
        .iter()
        .filter_map(|event| translate::change(event, prefix));
    let mut groups: Vec<(u64, Vec<Change>)> = Vec::new();
    for (revision, change) in changes {
        match groups.last_mut() {
            Some((at, group)) if *at == revision => group.push(change),
            _ => groups.push((revision, vec![change])),
        }
    }
    let mut mending = Vec::new();
    for (revision, group) in groups {
        let taken = shared.take(revision, group);
        mending.extend(shared.publish(taken));
        if shared.done_for().is_some() {
            // What comes behind makes no sense without what is missing.
            break;
        }
    }
    mending
}

/// Changes were compacted away, or the stream just ended: what there is tells both.
async fn resume_without_changes(shared: &Arc<Shared>) -> Result<(), StoreError> {
    let resume = shared.reader().mark().resume(&Past::Gone);
    match resume {
        Resume::ReadAll => read_all(shared).await,
        Resume::OlderCopy => older_copy(shared).await,
        // Once more from the start.
        Resume::Watch => Ok(()),
    }
}

async fn read_all(shared: &Arc<Shared>) -> Result<(), StoreError> {
    let mut pause = PAUSE.0;
    for reading in 1.. {
        let (revision, all) = shared.connection.all().await?;
        let mut reader = shared.reader().clone();
        let taken = reader.take_all(revision, all.clone());
        if taken.is_doubtful() && !taken.is_rolled_back() && reading < READINGS {
            taken
                .findings
                .iter()
                .for_each(|finding| shared.tell(finding));
            mend(shared, taken.written_back()).await;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
            continue;
        }
        match taken.is_rolled_back() {
            true => shared.roll_back(revision, all),
            // Nobody else changes it.
            false => shared.replace(reader, &taken),
        }
        let mending = shared.publish(taken);
        if shared.done_for().is_none() {
            mend(shared, mending).await;
        }
        break;
    }
    Ok(())
}

/// The store is an older copy, in which others have written as much as was lost.
async fn older_copy(shared: &Arc<Shared>) -> Result<(), StoreError> {
    let (revision, all) = shared.connection.all().await?;
    let finding = shared.reader().rolled_back(revision);
    shared.roll_back(revision, all);
    let findings = vec![finding];
    shared.publish(Taken {
        findings,
        ..Taken::default()
    });
    Ok(())
}

/// Puts right what can be, and what could not be before; another node may be faster.
async fn mend(shared: &Arc<Shared>, steps: Vec<Step>) {
    let mut owed = shared.owed(steps);
    while let Some(step) = owed.pop_front() {
        if let Err(error) = shared.connection.step(&step).await {
            // Whatever it was that etcd did not take, it is repeated: each step has its
            // guards. What is too much is found again at the next reading of everything.
            tracing::warn!(%error, owed = owed.len() + 1, "etcd.mend");
            owed.push_front(step);
            break;
        }
    }
    shared.owe(owed);
}
