//! What the builder itself costs, apart from the programs it runs.

use std::time::Instant;

use crate::workbench::Workbench;

#[test]
fn an_unchanged_python_app_costs_little() {
    let mut bench = Workbench::new(&[("requirements.txt", ""), ("Procfile", "web: x")]);
    for index in 0..200 {
        bench.write(&format!("src/module{index}.py"), &"x = 1\n".repeat(100));
    }
    assert_eq!(bench.build().status, 0);
    let best = (0..5)
        .map(|_| {
            let built = bench.build();
            assert_eq!(built.foreign_ms, 0);
            let started = Instant::now();
            let status = dozen_builder::phases::run(
                dozen_builder::phases::Phase::Analyze,
                &bench.roots,
                bench.environment.clone(),
                Box::new(std::io::sink()),
            );
            assert_eq!(status, 0);
            started.elapsed()
        })
        .min();
    // Generous, because tests are built without optimisation and run beside others.
    assert!(best.is_some_and(|best| best.as_millis() < 250), "{best:?}");
}
