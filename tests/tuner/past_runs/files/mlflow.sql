CREATE TABLE "runs" (
	run_uuid VARCHAR(32) NOT NULL, 
	name VARCHAR(250), 
	source_type VARCHAR(20), 
	source_name VARCHAR(500), 
	entry_point_name VARCHAR(50), 
	user_id VARCHAR(256), 
	status VARCHAR(9), 
	start_time BIGINT, 
	end_time BIGINT, 
	source_version VARCHAR(50), 
	lifecycle_stage VARCHAR(20), 
	artifact_uri VARCHAR(200), 
	experiment_id INTEGER, deleted_time BIGINT, 
	CONSTRAINT run_pk PRIMARY KEY (run_uuid), 
	CONSTRAINT runs_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	CONSTRAINT source_type CHECK (source_type IN ('NOTEBOOK', 'JOB', 'LOCAL', 'UNKNOWN', 'PROJECT')), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id), 
	CHECK (status IN ('SCHEDULED', 'FAILED', 'FINISHED', 'RUNNING', 'KILLED'))
);
CREATE TABLE "metrics" (
	"key" VARCHAR(250) NOT NULL, 
	value FLOAT NOT NULL, 
	timestamp BIGINT NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	step BIGINT DEFAULT '0' NOT NULL, 
	is_nan BOOLEAN DEFAULT '0' NOT NULL, 
	CONSTRAINT metric_pk PRIMARY KEY ("key", timestamp, step, run_uuid, value, is_nan), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid), 
	CHECK (is_nan IN (0, 1))
);
CREATE TABLE "params" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000) NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT param_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid)
);
INSERT INTO runs VALUES ('3278e4916a2743ceafb03610009be4bd', 'run-64', 'UNKNOWN', '', '', 'user', 'FINISHED', 1795974080587, 1795974080628, '', 'active', 'mlruns/1/3278e4916a2743ceafb03610009be4bd/artifacts', 1, NULL);
INSERT INTO runs VALUES ('d88d2100905b40eaa536d3ac0d522f2b', 'run-128', 'UNKNOWN', '', '', 'user', 'FINISHED', 1795974080632, 1795974080665, '', 'active', 'mlruns/1/d88d2100905b40eaa536d3ac0d522f2b/artifacts', 1, NULL);
INSERT INTO runs VALUES ('f5270374c2cd422f8e066880a48c1a81', 'nan', 'UNKNOWN', '', '', 'user', 'FINISHED', 1795974080668, 1795974080679, '', 'active', 'mlruns/1/f5270374c2cd422f8e066880a48c1a81/artifacts', 1, NULL);
INSERT INTO metrics VALUES ('val_accuracy', 0.58, 1795974080599, '3278e4916a2743ceafb03610009be4bd', 100, 0);
INSERT INTO metrics VALUES ('train/loss', 1.0, 1795974080602, '3278e4916a2743ceafb03610009be4bd', 100, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.66, 1795974080605, '3278e4916a2743ceafb03610009be4bd', 200, 0);
INSERT INTO metrics VALUES ('train/loss', 0.5, 1795974080608, '3278e4916a2743ceafb03610009be4bd', 200, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.74, 1795974080610, '3278e4916a2743ceafb03610009be4bd', 300, 0);
INSERT INTO metrics VALUES ('train/loss', 3.33333333333333314829e-01, 1795974080613, '3278e4916a2743ceafb03610009be4bd', 300, 0);
INSERT INTO metrics VALUES ('val_accuracy', 8.20000000000000062172e-01, 1795974080615, '3278e4916a2743ceafb03610009be4bd', 400, 0);
INSERT INTO metrics VALUES ('train/loss', 0.25, 1795974080620, '3278e4916a2743ceafb03610009be4bd', 400, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.9, 1795974080623, '3278e4916a2743ceafb03610009be4bd', 500, 0);
INSERT INTO metrics VALUES ('train/loss', 0.2, 1795974080625, '3278e4916a2743ceafb03610009be4bd', 500, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.58, 1795974080639, 'd88d2100905b40eaa536d3ac0d522f2b', 100, 0);
INSERT INTO metrics VALUES ('train/loss', 1.0, 1795974080641, 'd88d2100905b40eaa536d3ac0d522f2b', 100, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.66, 1795974080643, 'd88d2100905b40eaa536d3ac0d522f2b', 200, 0);
INSERT INTO metrics VALUES ('train/loss', 0.5, 1795974080645, 'd88d2100905b40eaa536d3ac0d522f2b', 200, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.74, 1795974080647, 'd88d2100905b40eaa536d3ac0d522f2b', 300, 0);
INSERT INTO metrics VALUES ('train/loss', 3.33333333333333314829e-01, 1795974080650, 'd88d2100905b40eaa536d3ac0d522f2b', 300, 0);
INSERT INTO metrics VALUES ('val_accuracy', 8.20000000000000062172e-01, 1795974080652, 'd88d2100905b40eaa536d3ac0d522f2b', 400, 0);
INSERT INTO metrics VALUES ('train/loss', 0.25, 1795974080654, 'd88d2100905b40eaa536d3ac0d522f2b', 400, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.9, 1795974080656, 'd88d2100905b40eaa536d3ac0d522f2b', 500, 0);
INSERT INTO metrics VALUES ('train/loss', 0.2, 1795974080659, 'd88d2100905b40eaa536d3ac0d522f2b', 500, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.98, 1795974080661, 'd88d2100905b40eaa536d3ac0d522f2b', 600, 0);
INSERT INTO metrics VALUES ('train/loss', 1.66666666666666657414e-01, 1795974080663, 'd88d2100905b40eaa536d3ac0d522f2b', 600, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.1, 1795974080675, 'f5270374c2cd422f8e066880a48c1a81', 100, 0);
INSERT INTO metrics VALUES ('val_accuracy', 0.0, 1795974080677, 'f5270374c2cd422f8e066880a48c1a81', 200, 1);
INSERT INTO params VALUES ('batch_size', '64', '3278e4916a2743ceafb03610009be4bd');
INSERT INTO params VALUES ('lr', '0.1', '3278e4916a2743ceafb03610009be4bd');
INSERT INTO params VALUES ('model', 'mlp', '3278e4916a2743ceafb03610009be4bd');
INSERT INTO params VALUES ('batch_size', '128', 'd88d2100905b40eaa536d3ac0d522f2b');
INSERT INTO params VALUES ('lr', '0.05', 'd88d2100905b40eaa536d3ac0d522f2b');
INSERT INTO params VALUES ('model', 'mlp', 'd88d2100905b40eaa536d3ac0d522f2b');
INSERT INTO params VALUES ('batch_size', '32', 'f5270374c2cd422f8e066880a48c1a81');
INSERT INTO params VALUES ('lr', '3.0', 'f5270374c2cd422f8e066880a48c1a81');
