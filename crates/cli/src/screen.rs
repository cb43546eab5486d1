//! A terminal that is drawn over and over, and given back as it was.

use std::io::{self, Write as _};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::queue;
use crossterm::style::Print;
use crossterm::terminal::{
    self, Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use crate::failure::{Failure, Outcome};

/// How high a terminal is that does not say it.
const USUAL_HEIGHT: u16 = 24;

/// The whole terminal, until it is dropped.
pub(crate) struct Screen;

fn cannot(error: &io::Error) -> Failure {
    Failure::failed(format!("cannot draw on the terminal: {error}"))
        .hint("pipe it through cat for plain lines")
}

impl Screen {
    /// Takes the terminal: keys come one by one, and what was on it comes back later.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn enter() -> Outcome<Self> {
        enable_raw_mode().map_err(|e| cannot(&e))?;
        // From here on it is given back, whatever happens.
        let screen = Self;
        let mut out = io::stdout().lock();
        queue!(out, EnterAlternateScreen, DisableLineWrap, Hide).map_err(|e| cannot(&e))?;
        out.flush().map_err(|e| cannot(&e))?;
        Ok(screen)
    }

    /// Draws lines from the top; what does not fit is left out.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn draw(&self, lines: &[String]) -> Outcome {
        // Some terminals do not know their size.
        let height = terminal::size().map_or(0, |(_, height)| height);
        let height = if height == 0 { USUAL_HEIGHT } else { height };
        draw(&mut io::stdout().lock(), lines, height).map_err(|e| cannot(&e))
    }
}

/// Over what was there before, so that nothing flickers.
fn draw(out: &mut impl io::Write, lines: &[String], height: u16) -> io::Result<()> {
    for (row, line) in (0..height).zip(lines) {
        queue!(
            out,
            MoveTo(0, row),
            Print(line),
            Clear(ClearType::UntilNewLine)
        )?;
    }
    let rows = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    if rows < height {
        queue!(out, MoveTo(0, rows), Clear(ClearType::FromCursorDown))?;
    }
    out.flush()
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout().lock();
        // A terminal that is gone needs nothing back.
        let _ = queue!(out, Show, EnableLineWrap, LeaveAlternateScreen);
        let _ = out.flush();
        let _ = disable_raw_mode();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out() {
        let lines: Vec<_> = (1..=9).map(|n| format!("line {n}")).collect();
        let drawn = |height| {
            let mut out = Vec::new();
            draw(&mut out, &lines, height).unwrap();
            String::from_utf8(out).unwrap()
        };
        let few = drawn(3);
        assert!(few.contains("line 3") && !few.contains("line 4"), "{few:?}");
        assert!(!few.contains('\n'), "a line feed would scroll");
        assert!(drawn(20).ends_with("\x1b[J"), "what was below is cleared");
    }
}
