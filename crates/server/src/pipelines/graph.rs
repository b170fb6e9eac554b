//! Which step waits for which: property references, property files, `DependsOn`, and the branches of Conditions.

use std::collections::BTreeSet;

use super::definition::{Definition, Step};
use super::expressions::{Expression, Flaw, JsonFile};

/// Fills in the dependencies of every step, and refuses references that lead nowhere and cycles.
///
/// # Errors
/// The first flaw with its place.
pub(super) fn connect(definition: &mut Definition) -> Result<(), Flaw> {
    let connected: Vec<BTreeSet<usize>> =
        definition.steps.iter().map(|step| dependencies(definition, step)).collect::<Result<_, _>>()?;
    for (step, dependencies) in definition.steps.iter_mut().zip(connected) {
        step.dependencies = dependencies;
    }
    if let Some(experiment) = &definition.experiment {
        for name in [&experiment.experiment_name, &experiment.trial_name].into_iter().flatten() {
            check_parameters(definition, name, "PipelineExperimentConfig")?;
            if !name.steps().is_empty() {
                let text = "names of experiments cannot depend on steps";
                return Err(Flaw::new("PipelineExperimentConfig", text));
            }
        }
    }
    order(definition).map(drop)
}

fn dependencies(definition: &Definition, step: &Step) -> Result<BTreeSet<usize>, Flaw> {
    let mut found = BTreeSet::new();
    let place = &step.place;
    for (at, name) in step.depends_on.iter().enumerate() {
        let position = definition.position(name).ok_or_else(|| {
            Flaw::new(&format!("{place}.DependsOn[{at}]"), format!("there is no step {name:?}"))
        })?;
        found.insert(position);
    }
    if let Some((condition, _)) = step.branch {
        found.insert(condition);
    }
    let mut flaw = None;
    step.each_expression(&mut |expression| {
        if flaw.is_none() {
            flaw = references(definition, expression, place, &mut found).err();
        }
    });
    flaw.map_or(Ok(found), Err)
}

fn references(
    definition: &Definition,
    expression: &Expression,
    place: &str,
    found: &mut BTreeSet<usize>,
) -> Result<(), Flaw> {
    check_parameters(definition, expression, place)?;
    for name in expression.steps() {
        let position = definition.position(name);
        found.insert(position.ok_or_else(|| {
            Flaw::new(place, format!("the reference to Steps.{name} leads to no step of this pipeline"))
        })?);
    }
    let mut missing = None;
    expression.each(&mut |inner| {
        if let Expression::JsonGet { file: JsonFile::Property { step, name }, .. } = inner
            && let Some(owner) = definition.step(step)
            && !owner.property_files.iter().any(|file| file.name == *name)
        {
            missing = Some(format!("the step {step} has no property file {name:?}"));
        }
    });
    missing.map_or(Ok(()), |text| Err(Flaw::new(place, text)))
}

fn check_parameters(definition: &Definition, expression: &Expression, place: &str) -> Result<(), Flaw> {
    let mut unknown = None;
    expression.each(&mut |inner| {
        if let Expression::Parameter(name) = inner
            && !definition.parameters.iter().any(|parameter| parameter.name == *name)
        {
            unknown = Some(name.clone());
        }
    });
    match unknown {
        None => Ok(()),
        Some(name) => {
            Err(Flaw::new(place, format!("the reference to Parameters.{name} leads to no parameter")))
        }
    }
}

/// Positions of the steps, each after all that it waits for.
///
/// # Errors
/// A cycle, named step by step.
pub fn order(definition: &Definition) -> Result<Vec<usize>, Flaw> {
    let steps = &definition.steps;
    let mut waiting: Vec<usize> = steps.iter().map(|step| step.dependencies.len()).collect();
    let mut dependents = vec![Vec::new(); steps.len()];
    for (at, step) in steps.iter().enumerate() {
        step.dependencies.iter().for_each(|dependency| dependents[*dependency].push(at));
    }
    let mut ready: BTreeSet<usize> = (0..steps.len()).filter(|at| waiting[*at] == 0).collect();
    let mut order = Vec::with_capacity(steps.len());
    while let Some(at) = ready.pop_first() {
        order.push(at);
        for dependent in &dependents[at] {
            waiting[*dependent] -= 1;
            if waiting[*dependent] == 0 {
                ready.insert(*dependent);
            }
        }
    }
    if order.len() < steps.len() {
        let done: Vec<bool> = waiting.iter().map(|left| *left == 0).collect();
        return Err(cycle(definition, &done));
    }
    Ok(order)
}

/// Walks back from a step that cannot start until a step comes up twice.
fn cycle(definition: &Definition, done: &[bool]) -> Flaw {
    let steps = &definition.steps;
    let mut at = done.iter().position(|done| !done).unwrap_or_default();
    let mut seen = Vec::new();
    let mut position = vec![None; steps.len()];
    while position[at].is_none() {
        position[at] = Some(seen.len());
        seen.push(at);
        let next = steps[at].dependencies.iter().find(|dependency| !done[**dependency]);
        at = next.copied().unwrap_or_default();
    }
    let start = position[at].unwrap_or_default();
    let mut names: Vec<&str> = seen[start..].iter().map(|one| steps[*one].name.as_str()).collect();
    names.push(&steps[at].name);
    Flaw::new(
        &steps[at].place,
        format!("the steps wait for each other in a circle: {}", names.join(" waits for ")),
    )
}
