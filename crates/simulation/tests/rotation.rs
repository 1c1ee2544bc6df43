//! What a simulation must be worth: it goes through every kind of end, replays, and finds what is planted. That no law is broken is
//! for `simulate.rs`.

use keyroll_rotate::Profile;
use keyroll_saga::Shape;
use keyroll_simulation::rotation::{Plant, Simulator, Summary};

fn production() -> Shape {
    let profile = Profile::load("proxpanel", &[]).unwrap();
    let names = profile.select(&["production".to_owned()]).unwrap();
    profile.plan_shape(&names)
}

fn first_broken(plant: Option<Plant>, seeds: std::ops::Range<u64>) -> Option<Summary> {
    let simulator = Simulator::new(production()).unwrap();
    seeds
        .map(|seed| simulator.run(seed, plant))
        .find(|run| !run.broken.is_empty())
}

#[test]
fn rotations_end_in_every_way_and_die_on_the_way() {
    let simulator = Simulator::new(production()).unwrap();
    let runs: Vec<Summary> = (0..500).map(|seed| simulator.run(seed, None)).collect();
    let ended = |how: &str| {
        let all = runs
            .iter()
            .filter(|r| r.ending.is_some_and(|e| e.to_string() == how));
        all.count()
    };
    assert!(ended("Completed") > 50, "{}", ended("Completed"));
    assert!(ended("Compensated") > 50, "{}", ended("Compensated"));
    assert!(runs.iter().filter(|r| r.lives > 2).count() > 50);
}

#[test]
fn a_seed_replays_its_run() {
    let [one, other] = [0, 1].map(|_| Simulator::new(production()).unwrap());
    for seed in 0..50 {
        assert_eq!(one.run(seed, None), other.run(seed, None));
    }
}

#[test]
fn each_planted_defect_is_found() {
    for (name, plant) in Plant::ALL {
        let found = first_broken(Some(plant), 0..4000);
        println!("{name}: {found:?}");
        assert!(found.is_some(), "{name} was not found");
    }
}

#[test]
fn a_step_that_is_not_modelled_is_not_taken_for_one_that_does_nothing() {
    let mut shape = production();
    shape.pivot = "another".into();
    let refused = Simulator::new(shape).unwrap_err();
    assert!(refused.to_string().contains("another"), "{refused}");
}
