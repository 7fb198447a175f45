//! The end-to-end tests: real pods, in every cgroup layout of this machine.

use std::process::ExitCode;

mod app_changes;
mod attach;
mod attach_contract;
mod attach_load;
mod attacks;
mod caller;
mod cgroups;
mod confined;
mod contract;
mod cp_diff_export;
mod crash;
mod cri;
mod cri_campaign;
mod cri_devices;
mod cri_figures;
mod cri_images;
mod cri_requests;
mod cri_streams;
mod cri_users;
mod declared;
mod descriptors;
mod disk;
mod enter;
mod entrypoints;
mod event_handlers;
mod events;
mod exec;
mod exit_statuses;
mod extras;
mod failure_messages;
mod filters;
mod formats;
mod groups;
mod harness;
mod health;
mod immutable;
mod inside;
mod kernel_files;
mod layers;
mod lifecycle;
mod limits;
mod logs;
mod logs_faults;
mod mounts;
mod named_volumes;
mod names;
mod net;
mod package;
mod pid_namespaces;
mod podfile;
mod podfile_faults;
mod podfile_table;
mod pods;
mod ports;
mod races;
mod readme;
mod references;
mod refusals;
mod registry;
mod registry_access;
mod registry_errors;
mod registry_hostile;
mod restarts;
mod services;
mod start;
mod start_while_ending;
mod stop;
mod store;
mod supervisor;
mod systemd_units;
mod targets;
mod terminal;
mod unknown_values;
mod usage_and_pause;
mod userlands;
mod users;
mod volumes;
mod without_overlays;

fn main() -> ExitCode {
    let cases = [
        harness::CASES,
        entrypoints::CASES,
        cgroups::CASES,
        caller::CASES,
        confined::CASES,
        contract::CASES,
        contract::entry::CASES,
        contract::found::CASES,
        contract::kinds::CASES,
        contract::networks::CASES,
        cp_diff_export::CASES,
        lifecycle::CASES,
        races::CASES,
        disk::CASES,
        crash::store::CASES,
        crash::apps::CASES,
        crash::pods::CASES,
        crash::crossings::CASES,
        cri::CASES,
        cri_requests::CASES,
        cri_campaign::CASES,
        cri_devices::CASES,
        cri_figures::CASES,
        cri_images::CASES,
        cri_streams::CASES,
        cri_users::CASES,
        event_handlers::CASES,
        start_while_ending::CASES,
        exit_statuses::CASES,
        immutable::CASES,
        refusals::CASES,
        usage_and_pause::CASES,
        start::CASES,
        restarts::CASES,
        health::CASES,
        app_changes::CASES,
        stop::CASES,
        services::CASES,
        store::CASES,
        inside::CASES,
        systemd_units::CASES,
        kernel_files::CASES,
        declared::CASES,
        descriptors::CASES,
        targets::CASES,
        volumes::CASES,
        limits::CASES,
        logs::CASES,
        logs_faults::CASES,
        mounts::CASES,
        named_volumes::CASES,
        names::CASES,
        filters::CASES,
        net::CASES,
        ports::CASES,
        enter::CASES,
        formats::CASES,
        groups::CASES,
        userlands::CASES,
        users::CASES,
        without_overlays::CASES,
        package::CASES,
        pid_namespaces::CASES,
        podfile::CASES,
        podfile_faults::CASES,
        podfile_table::CASES,
        pods::CASES,
        supervisor::CASES,
        terminal::CASES,
        failure_messages::CASES,
        unknown_values::CASES,
        layers::CASES,
        events::CASES,
        exec::CASES,
        extras::CASES,
        attach::CASES,
        attach_contract::CASES,
        attach_load::CASES,
        attacks::entering::CASES,
        attacks::files::CASES,
        attacks::kernel::CASES,
        attacks::manifests::CASES,
        attacks::programs::CASES,
        attacks::readback::CASES,
        attacks::trees::CASES,
        readme::CASES,
        references::CASES,
        registry::CASES,
        registry_errors::CASES,
        registry_hostile::CASES,
        registry_access::CASES,
    ];
    tests::harness::main(&cases, harness::DECOYS)
}
