use super::*;
use crate::base::RoleSet;
use crate::control::actor::Proof;

fn actor(tenant: &str, role: Option<Role>, auditor: bool) -> Actor {
    Actor {
        tenant: TenantId::new(tenant),
        roles: role.into_iter().collect::<RoleSet>(),
        auditor,
        ..Actor::operator(Proof::Key)
    }
}

fn on(permission: Permission, target: Target) -> Operation {
    Operation { id: "x", permission, target, trail: Trail::Always }
}

#[test]
fn a_role_holds_what_weaker_ones_hold() {
    for permission in Permission::ALL {
        let held: Vec<bool> =
            Role::ALL.iter().map(|r| holds(&actor("default", Some(*r), false), *permission)).collect();
        assert!(held.is_sorted(), "{permission:?}: {held:?}");
    }
}

#[test]
fn nobody_reads_bodies_but_auditors() {
    for role in Role::ALL {
        assert!(!holds(&actor("default", Some(role), false), Permission::AuditBodies), "{role}");
        assert!(holds(&actor("default", Some(role), true), Permission::AuditBodies), "{role}");
    }
}

#[test]
fn a_tenants_own_role_gives_what_it_names_and_never_bodies_or_the_platform() {
    for permission in Permission::ALL {
        let nobody = Actor { custom: [*permission].into_iter().collect(), ..actor("a", None, false) };
        let held: Vec<_> = Permission::ALL.iter().filter(|p| holds(&nobody, **p)).collect();
        let mut expected = vec![Permission::SelfRead];
        if may_be_given(*permission) && *permission != Permission::SelfRead {
            expected.push(*permission);
        }
        assert_eq!(held, expected.iter().collect::<Vec<_>>(), "{permission:?}");
    }
    for not in [Permission::PlatformRead, Permission::PlatformWrite, Permission::AuditBodies] {
        assert!(!may_be_given(not), "{not:?}");
    }
}

#[test]
fn without_a_role_nothing_but_oneself_is_seen() {
    let nobody = actor("a", None, false);
    let held: Vec<_> = Permission::ALL.iter().filter(|p| holds(&nobody, **p)).collect();
    assert_eq!(held, [&Permission::SelfRead]);
}

#[test]
fn the_own_tenant_and_no_other() {
    let (own, other) = (TenantId::new("a"), TenantId::new("b"));
    let everything = on(Permission::ConfigWrite, Target::Tenant);
    for role in [Role::Admin, Role::SuperAdmin] {
        let admin = actor("a", Some(role), true);
        assert_eq!(decide(&admin, Some(&own), &everything), Ok(()));
        assert_eq!(decide(&admin, Some(&other), &everything), Err(Refusal::ForeignTenant));
        assert_eq!(decide(&admin, Some(&TenantId::default()), &everything), Err(Refusal::ForeignTenant));
        assert_eq!(decide(&admin, None, &everything), Err(Refusal::ForeignTenant));
        let platform = on(Permission::PlatformRead, Target::Platform);
        assert_eq!(
            decide(&admin, None, &platform),
            Err(Refusal::Missing(Permission::PlatformRead)),
            "{role} of a tenant"
        );
    }
}

#[test]
fn who_runs_the_platform_acts_in_every_tenant() {
    let operator = actor("default", Some(Role::SuperAdmin), false);
    for tenant in ["default", "a", "b"] {
        let tenant = TenantId::new(tenant);
        assert_eq!(decide(&operator, Some(&tenant), &on(Permission::KeysWrite, Target::Tenant)), Ok(()));
        let bodies = on(Permission::AuditBodies, Target::Tenant);
        assert!(decide(&operator, Some(&tenant), &bodies).is_err(), "bodies need the add-on");
    }
    assert_eq!(decide(&operator, None, &on(Permission::PlatformWrite, Target::Platform)), Ok(()));
    let admin = actor("default", Some(Role::Admin), false);
    assert!(decide(&admin, Some(&TenantId::new("a")), &on(Permission::HealthRead, Target::Tenant)).is_err());
}

#[test]
fn operations_have_distinct_ids() {
    let mut ids: Vec<_> = OPERATIONS.iter().map(|o| o.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), OPERATIONS.len());
}

#[test]
fn permissions_of_the_platform_act_on_the_platform() {
    for operation in OPERATIONS {
        let strong = matches!(operation.permission, Permission::PlatformRead | Permission::PlatformWrite);
        assert_eq!(strong, operation.target == Target::Platform, "{}", operation.id);
    }
}
