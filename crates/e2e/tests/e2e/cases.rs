//! Runs the data-block cases of all crates (`crates/*/tests/cases/*.case`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many servers run at once.
const PARALLEL: usize = 4;

#[test]
fn data_block_cases() {
    let mut cases = Vec::new();
    for krate in std::fs::read_dir(e2e::root().join("crates")).expect("crates are there").flatten() {
        let Ok(files) = std::fs::read_dir(krate.path().join("tests/cases")) else { continue };
        let mut files: Vec<_> = files.flatten().map(|f| f.path()).collect();
        files.retain(|f| f.extension().is_some_and(|e| e == "case"));
        files.sort();
        files.iter().for_each(|f| cases.extend(e2e::case::read(f)));
    }
    let only = std::env::var("CASE").unwrap_or_default();
    cases.retain(|c| c.name.contains(&only));
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|s| {
        for _ in 0..PARALLEL {
            s.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = std::panic::catch_unwind(|| case.run());
                    let error = match result {
                        Ok(Ok(())) => continue,
                        Ok(Err(e)) => e,
                        Err(_) => "panicked, see above".to_string(),
                    };
                    failures.lock().expect("no holder panics").push(format!("{}\n  {error}\n", case.name));
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no holder panics");
    assert!(
        failures.is_empty(),
        "{} of {} cases failed:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
    assert!(!cases.is_empty(), "no case was found");
}
