-- What is refused anywhere, among all that is served.
CREATE INDEX replica_revisions_refused ON replica_revisions (tenant, boot) WHERE refused IS NOT NULL;
