//! Many seeds, each its own world. `KOBZA_SEEDS` says how many, `KOBZA_SEED` runs one.

use kobza_sim::Sim;

const STEPS: u32 = 200;

#[test]
fn seeds() {
    if let Ok(seed) = std::env::var("KOBZA_SEED") {
        let seed: u64 = seed.parse().unwrap();
        let report = Sim::new(seed).run(STEPS).unwrap_or_else(|failure| panic!("{failure}"));
        println!("{report:?}");
        return;
    }
    let count: u64 =
        std::env::var("KOBZA_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(10_000);
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get() as u64);
    let happened = std::thread::scope(|scope| {
        let spawn = |thread| {
            scope.spawn(move || {
                let mut happened = [0; 6];
                for seed in (thread..count).step_by(threads as usize) {
                    let again = format!("again: KOBZA_SEED={seed} cargo test -p kobza-sim");
                    match std::panic::catch_unwind(|| Sim::new(seed).run(STEPS)) {
                        Ok(Ok(r)) => {
                            let did = [
                                r.runs,
                                r.crashes,
                                r.unknown_commits,
                                r.lost,
                                r.stopped,
                                r.cleared,
                            ];
                            happened.iter_mut().zip(did).for_each(|(sum, n)| *sum += u64::from(n));
                        }
                        Ok(Err(failure)) => panic!("{failure}\n{again}"),
                        Err(_) => panic!("the engine panicked\n{again}"),
                    }
                }
                happened
            })
        };
        let all: Vec<_> = (0..threads).map(spawn).collect();
        all.into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .reduce(|a, b| std::array::from_fn(|i| a[i] + b[i]))
            .unwrap_or_default()
    });
    println!("runs, crashes, unknown commits, lost bodies, stops, clears: {happened:?}");
    assert!(count < 100 || happened.iter().all(|n| *n > count / 4), "a fault is too rare");
}
