//! A panic in a schedule is a failure of that schedule, not the end of the hunt.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether a panic here would be caught, and then, whether it is told aloud.
    static LISTENING: Cell<Option<bool>> = const { Cell::new(None) };
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

/// What a panic is called among the invariants.
pub const PANIC: &str = "panic";

/// Does it, and says what it panicked with and where, if it did. Other threads' panics
/// are told as ever; so is this one, too, if it is to be told `aloud` and a backtrace
/// is wanted.
pub(crate) fn caught<T>(aloud: bool, work: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            let aloud = match LISTENING.get() {
                None => true,
                Some(aloud) => {
                    SAID.replace(words(info));
                    aloud && std::env::var_os("RUST_BACKTRACE").is_some()
                }
            };
            if aloud {
                previous(info);
            }
        }));
    });
    let outer = LISTENING.replace(Some(aloud));
    let done = catch_unwind(AssertUnwindSafe(work));
    LISTENING.set(outer);
    done.map_err(|_| SAID.take())
}

fn words(info: &PanicHookInfo<'_>) -> String {
    let message = info.payload_as_str().unwrap_or("a panic without words");
    match info.location() {
        Some(at) => format!("{message} ({}:{})", at.file(), at.line()),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_says_what_and_where() {
        assert_eq!(caught(false, || 7), Ok(7));
        let said = caught(false, || panic!("no {}", "way")).unwrap_err();
        assert!(said.starts_with("no way ("), "{said}");
        assert!(said.contains("panics.rs:"), "{said}");
        // Inner ones do not end the listening of outer ones.
        let said = caught(false, || {
            caught(false, || panic!("inner")).unwrap_err();
            panic!("outer")
        });
        assert!(said.unwrap_err().starts_with("outer ("));
    }
}
