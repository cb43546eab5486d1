//! Seven scenarios on five trustees, four of whom decide: each is acted out over real
//! mTLS streams, told in a small table, and checked claim by claim.

mod check;
mod crash;
mod honest;
mod liars;
mod theatre;

use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use quorate_telemetry::LogSettings;
use serde_json::json;

use self::check::Report;
use self::theatre::Theatre;
use crate::failure::{Failure, Outcome};
use crate::output::{Out, Tone};
use crate::signals;

/// What there is to see, in the order in which it is shown.
const SCENARIOS: [(u8, &str); 7] = [
    (1, "four equal votes: decided, submitted once, proven"),
    (2, "a double vote: evidence, ban, abort"),
    (3, "a dissenting vote before the threshold: ban, abort"),
    (
        4,
        "a forged vote: the forger is banned, its victim untouched, the ballot decides",
    ),
    (
        5,
        "a silent trustee: the rest decide, the silent one is marked at the deadline",
    ),
    (
        6,
        "a submitter killed after sending: recovered, one ledger entry",
    ),
    (
        7,
        "a second value at an honest node: refused by its sign guard",
    ),
];

/// Shows some scenarios, or all.
///
/// # Errors
/// When an outcome is not as told.
pub(crate) async fn run(chosen: &[u8], keep: Option<&Path>, log_level: &str, out: Out) -> Outcome {
    let log = LogSettings {
        level: log_level.into(),
        ..LogSettings::default()
    };
    quorate_telemetry::init(&log).map_err(Failure::usage)?;
    let began = Instant::now();
    out.line(format!(
        "{}\n",
        out.bold("Quorate: five trustees, four equal votes decide (N = 5, t = 4)")
    ));
    let theatre = Theatre::open(keep)?;
    let mut reports = Vec::new();
    // Ctrl-C must leave nothing behind either: dropping what runs ends and removes it.
    let told_to_stop = signals::until_told_to_stop();
    tokio::pin!(told_to_stop);
    for (number, title) in SCENARIOS {
        if !chosen.is_empty() && !chosen.contains(&number) {
            continue;
        }
        let progress = progress(out, number, title);
        let report = tokio::select! {
            report = show(number, title, &theatre) => report,
            name = &mut told_to_stop => {
                return Err(Failure::failed(format!("the demo was ended by {name}")));
            }
        };
        progress.finish_and_clear();
        report.print(out);
        reports.push(report);
    }
    let failed: Vec<_> = reports
        .iter()
        .filter(|report| !report.holds())
        .map(|report| report.number())
        .collect();
    out.json_pretty(&json!({
        "holds": failed.is_empty(),
        "took_ms": u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "kept": keep,
        "scenarios": reports.iter().map(Report::json).collect::<Vec<_>>(),
    }));
    if !failed.is_empty() {
        let numbers: Vec<_> = failed.iter().map(ToString::to_string).collect();
        return Err(
            Failure::failed(format!("not as told: scenario {}", numbers.join(", ")))
                .hint("see what the nodes say: RUST_LOG=info quorate demo --scenario N"),
        );
    }
    out.line(out.paint(
        Tone::Good,
        format!(
            "{} of {} scenarios as told, in {:.1} s",
            reports.len(),
            reports.len(),
            began.elapsed().as_secs_f64()
        ),
    ));
    if let Some(keep) = keep {
        out.line(format!("proofs kept in {}", keep.display()));
    }
    out.line("Next: quorate dev");
    Ok(())
}

async fn show(number: u8, title: &'static str, theatre: &Theatre) -> Report {
    let mut report = Report::new(number, title);
    let shown = match number {
        1 => honest::four_equal_votes(&mut report, theatre).await,
        2 => liars::double_vote(&mut report, theatre).await,
        3 => liars::dissent(&mut report, theatre).await,
        4 => liars::forged_vote(&mut report, theatre).await,
        5 => liars::silence(&mut report, theatre).await,
        6 => crash::after_sending(&mut report, theatre).await,
        _ => honest::second_value(&mut report, theatre).await,
    };
    if let Err(failure) = shown {
        report.broke_off(&failure);
    }
    report
}

/// Something moves on a terminal while a scenario runs.
fn progress(out: Out, number: u8, title: &str) -> ProgressBar {
    if !out.is_live() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(format!("{number}. {title}"));
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
