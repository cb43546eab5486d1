//! How long to wait before a peer is dialled again.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause after a stream was lost.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause while a peer may be back at any moment.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A peer that was not there for so long is dialled rarely: when it starts, it dials by
/// itself.
const LONG_GONE: Duration = Duration::from_secs(300);

/// The longest pause then. It bounds how long a mended network stays unnoticed.
const RARE_PAUSE: Duration = Duration::from_secs(30);

/// The pauses before one peer is dialled again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    next: Duration,
    failing_since: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            next: FIRST_PAUSE,
            failing_since: None,
        }
    }
}

impl Backoff {
    /// The pause after one more attempt that came to nothing. `share` is by chance,
    /// from 0 to 1: many that lost one peer at one moment do not come back at one
    /// moment.
    pub(super) fn pause(&mut self, now: Instant, share: f64) -> Duration {
        let since = *self.failing_since.get_or_insert(now);
        let longest = match now.saturating_duration_since(since) {
            gone if gone >= LONG_GONE => RARE_PAUSE,
            _ => LONGEST_PAUSE,
        };
        let pause = self.next.min(longest);
        self.next = (pause * 2).min(RARE_PAUSE);
        // Between half the pause and the whole.
        pause.mul_f64(0.5 + share.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_stays_away_is_dialled_ever_more_rarely_and_never_given_up() {
        let (start, mut backoff) = (Instant::now(), Backoff::default());
        let mut now = start;
        let (mut pauses, mut in_the_first_hour) = (Vec::new(), 0);
        for _ in 0..1000 {
            let pause = backoff.pause(now, 1.0);
            pauses.push(pause);
            now += pause;
            in_the_first_hour += usize::from(now - start < Duration::from_secs(3600));
        }
        assert_eq!(pauses[0], FIRST_PAUSE);
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert_eq!(pauses[10], LONGEST_PAUSE);
        assert_eq!(pauses.last(), Some(&RARE_PAUSE));
        assert!(
            (120..220).contains(&in_the_first_hour),
            "{in_the_first_hour}"
        );
        // By chance half as long, and no shorter.
        assert_eq!(Backoff::default().pause(start, 0.0), FIRST_PAUSE / 2);
    }
}
