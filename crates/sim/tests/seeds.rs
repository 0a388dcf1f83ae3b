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
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for seed in (thread..count).step_by(threads as usize) {
                    let again = format!("again: KOBZA_SEED={seed} cargo test -p kobza-sim");
                    match std::panic::catch_unwind(|| Sim::new(seed).run(STEPS)) {
                        Ok(Ok(_)) => {}
                        Ok(Err(failure)) => panic!("{failure}\n{again}"),
                        Err(_) => panic!("the engine panicked\n{again}"),
                    }
                }
            });
        }
    });
}
