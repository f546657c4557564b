-- Rendezvous points, terms and boot ids are heard again after every start of the server, and certificates speak for
-- themselves: nothing of it is remembered.
ALTER TABLE offices DROP COLUMN term;
ALTER TABLE offices DROP COLUMN rendezvous_point;
ALTER TABLE nodes DROP COLUMN boot_id;
ALTER TABLE nodes DROP COLUMN certificate_serial;
ALTER TABLE nodes DROP COLUMN last_seen;
