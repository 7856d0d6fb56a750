BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE paceline_alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT paceline_alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "paceline_alembic_version" VALUES('0001');
CREATE TABLE paceline_curve_points (
	probe_id INTEGER NOT NULL, 
	slice_index INTEGER NOT NULL, 
	point_index INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	training_seconds DOUBLE NOT NULL, 
	step BIGINT NOT NULL, 
	samples BIGINT NOT NULL, 
	value DOUBLE, 
	CONSTRAINT pk_paceline_curve_points PRIMARY KEY (probe_id, slice_index, point_index), 
	CONSTRAINT fk_paceline_curve_points_probe_id_slice_index FOREIGN KEY(probe_id, slice_index) REFERENCES paceline_slices (probe_id, slice_index), 
	CONSTRAINT fk_paceline_curve_points_study_id FOREIGN KEY(study_id) REFERENCES paceline_studies (study_id)
);
INSERT INTO "paceline_curve_points" VALUES(1,1,0,1,3.5599999999999996092e+00,20,640,3.02139050707804779349e-01);
INSERT INTO "paceline_curve_points" VALUES(2,1,0,1,2.67,15,480,3.05983062239109093738e-01);
INSERT INTO "paceline_curve_points" VALUES(2,2,0,1,3.20399999999999973709e+00,18,576,0.340988847375152);
INSERT INTO "paceline_curve_points" VALUES(2,3,0,1,4.272,24,768,4.05640652829031389536e-01);
INSERT INTO "paceline_curve_points" VALUES(2,3,1,1,5.34,30,960,4.63751326831171928333e-01);
INSERT INTO "paceline_curve_points" VALUES(2,4,0,1,6.7639999999999993463e+00,38,1216,0.532191201650202);
INSERT INTO "paceline_curve_points" VALUES(2,5,0,1,8.722,49,1568,6.11732050682543215813e-01);
INSERT INTO "paceline_curve_points" VALUES(2,6,0,1,11.036,62,1984,6.87723671502720512727e-01);
INSERT INTO "paceline_curve_points" VALUES(2,7,0,1,14.062,79,2528,7.63956999766201905188e-01);
INSERT INTO "paceline_curve_points" VALUES(2,8,0,1,1.79779999999999979816e+01,101,3232,8.33889037244037734097e-01);
INSERT INTO "paceline_curve_points" VALUES(2,9,0,1,22.962,129,4128,8.91182067325838489502e-01);
INSERT INTO "paceline_curve_points" VALUES(2,11,0,1,2.93699999999999974411e+01,165,5280,0.933166976981749);
INSERT INTO "paceline_curve_points" VALUES(2,12,0,1,37.558,211,6752,9.59327366005651827052e-01);
CREATE TABLE paceline_fits (
	fit_id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	fingerprint VARCHAR(64) NOT NULL, 
	model VARCHAR(64) NOT NULL, 
	made_at DOUBLE NOT NULL, 
	num_slices INTEGER NOT NULL, 
	parameters JSON NOT NULL, 
	summary JSON NOT NULL, 
	CONSTRAINT pk_paceline_fits PRIMARY KEY (fit_id), 
	CONSTRAINT fk_paceline_fits_study_id FOREIGN KEY(study_id) REFERENCES paceline_studies (study_id)
);
INSERT INTO "paceline_fits" VALUES(25,1,'6f82c183d09a74e0','seconds',1.79598604708386373526e+09,15,'{"intercept": [-5.299289746180718, 0.5509810857677223], "log nodes": [-0.29973845867295523, 0.6436140211672275], "log rate": [2.670124154774922e-19, 0.01919824640311646], "log nodes squared": [0.03999177564344606, 0.10770111162778935]}','{"at_prior": ["log nodes", "log rate", "log nodes squared"], "sentences": ["Change of log seconds a sample with each unit (standard deviation): log nodes -0.30 (0.64), log rate +0.00 (0.02), log nodes squared +0.04 (0.11).", "Weights of the priors, by how well they predicted: neutral 50%, textbook 50%.", "Not determined by the data yet, so left at the prior: log nodes, log rate, log nodes squared."]}');
INSERT INTO "paceline_fits" VALUES(26,1,'6f82c183d09a74e0','samples',1.79598604708386373526e+09,15,'{"intercept": [8.630091558770888, 0.61591325003141], "log nodes": [0.10998117626350182, 0.5647463083746809], "log rate": [-0.34726144649437546, 0.5255873132485185], "log rate squared": [0.07998396784520637, 0.08962960963700993]}','{"at_prior": [], "sentences": ["Change of log samples to target with each unit (standard deviation): log nodes +0.11 (0.56), log rate -0.35 (0.53), log rate squared +0.08 (0.09).", "Weights of the priors, by how well they predicted: neutral 45%, textbook 55%."]}');
INSERT INTO "paceline_fits" VALUES(27,1,'6f82c183d09a74e0','calibration',1.79598604724206447605e+09,1,'{"mean squared error": [0.4009264340398933, 0.0]}','{"kind": "recorded"}');
CREATE TABLE paceline_predictions (
	prediction_id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	configuration TEXT NOT NULL, 
	made_at DOUBLE NOT NULL, 
	quantiles JSON NOT NULL, 
	dollars JSON NOT NULL, 
	probability_of_reaching DOUBLE NOT NULL, 
	num_slices INTEGER NOT NULL, 
	seconds_known DOUBLE NOT NULL, 
	purpose VARCHAR(64) NOT NULL, 
	CONSTRAINT pk_paceline_predictions PRIMARY KEY (prediction_id), 
	CONSTRAINT fk_paceline_predictions_study_id FOREIGN KEY(study_id) REFERENCES paceline_studies (study_id)
);
INSERT INTO "paceline_predictions" VALUES(1,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604521331715582e+09,'[[0.05, 5.444315359772243], [0.5, 28.546000029224132], [0.95, 129.2707543505589]]','[[0.05, 0.0010888630719544485], [0.5, 0.005709200005844826], [0.95, 0.025854150870111777]]',0.5,3,3.5599999999999996092e+00,'choice');
INSERT INTO "paceline_predictions" VALUES(2,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604521331715582e+09,'[[0.05, 3.2203876821659736], [0.5, 21.955689588787724], [0.95, 224.6874923289136]]','[[0.05, 0.0009661163046497922], [0.5, 0.006586706876636318], [0.95, 0.0674062476986741]]',0.5,3,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(3,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604521331715582e+09,'[[0.05, 3.560006893868579], [0.5, 36.37168191433845], [0.95, 1075.3304703438544]]','[[0.05, 0.0007120013787737158], [0.5, 0.00727433638286769], [0.95, 0.21506609406877086]]',0.5,3,2.0,'choice');
INSERT INTO "paceline_predictions" VALUES(4,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604521331715582e+09,'[[0.05, 2.893553572664698], [0.5, 39.982912511457705], [0.95, 1190.0893209600922]]','[[0.05, 0.0008680660717994095], [0.5, 0.011994873753437312], [0.95, 0.3570267962880277]]',0.5,3,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(5,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604538382458683e+09,'[[0.05, 11.633245261994603], [0.5, 143.36446929124207], [0.95, 2718.7653645288524]]','[[0.05, 0.0023266490523989204], [0.5, 0.02867289385824841], [0.95, 0.5437530729057705]]',0.5,4,3.5599999999999996092e+00,'choice');
INSERT INTO "paceline_predictions" VALUES(6,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604538382458683e+09,'[[0.05, 7.045839479330345], [0.5, 126.7694582895393], [0.95, 3735.4679771830456]]','[[0.05, 0.0021137518437991036], [0.5, 0.03803083748686179], [0.95, 1.1206403931549138]]',0.5,4,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(7,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604538382458683e+09,'[[0.05, 6.922300964177306], [0.5, 111.87270650487636], [0.95, 1229.0132905393448]]','[[0.05, 0.001384460192835461], [0.5, 0.02237454130097527], [0.95, 0.24580265810786894]]',0.5,4,2.67,'choice');
INSERT INTO "paceline_predictions" VALUES(8,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604538382458683e+09,'[[0.05, 5.8452486000942185], [0.5, 104.96969050526214], [0.95, 2123.806209671569]]','[[0.05, 0.0017535745800282658], [0.5, 0.031490907151578644], [0.95, 0.6371418629014708]]',0.5,4,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(9,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604553559803957e+09,'[[0.05, 10.268591600112472], [0.5, 128.27230063660497], [0.95, 1128.2348171866493]]','[[0.05, 0.002053718320022494], [0.5, 0.02565446012732099], [0.95, 0.22564696343732982]]',0.5,5,3.5599999999999996092e+00,'choice');
INSERT INTO "paceline_predictions" VALUES(10,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604553559803957e+09,'[[0.05, 7.465921070020774], [0.5, 120.91933739677657], [0.95, 1331.5432762851078]]','[[0.05, 0.002239776321006232], [0.5, 0.036275801219032976], [0.95, 0.3994629828855324]]',0.5,5,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(11,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604553559803957e+09,'[[0.05, 8.75850576357569], [0.5, 70.7660823850914], [0.95, 558.8389132169791]]','[[0.05, 0.0017517011527151377], [0.5, 0.014153216477018277], [0.95, 0.1117677826433958]]',0.5,5,4.20449999999999945998e+00,'choice');
INSERT INTO "paceline_predictions" VALUES(12,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604553559803957e+09,'[[0.05, 5.995788254403589], [0.5, 72.071089122531], [0.95, 834.472423196672]]','[[0.05, 0.0017987364763210768], [0.5, 0.021621326736759303], [0.95, 0.25034172695900164]]',0.5,5,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(13,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604569144988055e+09,'[[0.05, 7.829156944758634], [0.5, 68.42473810662948], [0.95, 487.99346858657384]]','[[0.05, 0.0015658313889517267], [0.5, 0.013684947621325895], [0.95, 0.09759869371731476]]',0.2734375,6,3.5599999999999996092e+00,'choice');
INSERT INTO "paceline_predictions" VALUES(14,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604569144988055e+09,'[[0.05, 3.868245953971665], [0.5, 50.245546080997606], [0.95, 533.5143172182633]]','[[0.05, 0.0011604737861914997], [0.5, 0.015073663824299283], [0.95, 0.160054295165479]]',0.2734375,6,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(15,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604569144988055e+09,'[[0.05, 6.0274498357777935], [0.5, 24.50396753383397], [0.95, 125.52262853521678]]','[[0.05, 0.0012054899671555587], [0.5, 0.004900793506766793], [0.95, 0.025104525707043353]]',0.05078125,6,5.9691749999999990095e+00,'choice');
INSERT INTO "paceline_predictions" VALUES(16,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604569144988055e+09,'[[0.05, 4.369144839781425], [0.5, 39.414638927689495], [0.95, 259.5136700166276]]','[[0.05, 0.0013107434519344277], [0.5, 0.01182439167830685], [0.95, 0.07785410100498828]]',0.2734375,6,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(17,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604582569551469e+09,'[[0.05, 7.555457656388787], [0.5, 59.359950674295014], [0.95, 444.7502983592191]]','[[0.05, 0.0015110915312777572], [0.5, 0.011871990134859001], [0.95, 0.0889500596718438]]',0.30078125,7,3.5599999999999996092e+00,'choice');
INSERT INTO "paceline_predictions" VALUES(18,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604582569551469e+09,'[[0.05, 3.728475826086961], [0.5, 47.71701953025038], [0.95, 467.91869397668125]]','[[0.05, 0.0011185427478260883], [0.5, 0.014315105859075116], [0.95, 0.1403756081930044]]',0.30078125,7,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(19,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604582569551469e+09,'[[0.05, 8.785519545565258], [0.5, 37.92015476346723], [0.95, 128.88294336809875]]','[[0.05, 0.0017571039091130514], [0.5, 0.007584030952693445], [0.95, 0.025776588673619746]]',0.09765625,7,7.7599274999999989788e+00,'choice');
INSERT INTO "paceline_predictions" VALUES(20,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604582569551469e+09,'[[0.05, 4.189354046725715], [0.5, 33.64633851793802], [0.95, 217.0581651518482]]','[[0.05, 0.0012568062140177144], [0.5, 0.010093901555381406], [0.95, 0.06511744954555446]]',0.30078125,7,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(21,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604595282626151e+09,'[[0.05, 8.503556965945702], [0.5, 53.23705786652718], [0.95, 305.29018646084194]]','[[0.05, 0.0017007113931891403], [0.5, 0.010647411573305435], [0.95, 0.06105803729216838]]',0.34765625,8,3.5599999999999996092e+00,'choice');
INSERT INTO "paceline_predictions" VALUES(22,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604595282626151e+09,'[[0.05, 3.6663768894870015], [0.5, 52.32560605804504], [0.95, 418.17744870859286]]','[[0.05, 0.0010999130668461006], [0.5, 0.015697681817413513], [0.95, 0.12545323461257787]]',0.34765625,8,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(23,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604595282626151e+09,'[[0.05, 10.162425529825885], [0.5, 47.350545535007434], [0.95, 137.56803269734078]]','[[0.05, 0.002032485105965177], [0.5, 0.009470109107001487], [0.95, 0.027513606539468154]]',0.1953125,8,1.0057916624999998945e+01,'choice');
INSERT INTO "paceline_predictions" VALUES(24,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604595282626151e+09,'[[0.05, 4.685662767590826], [0.5, 34.718123815022956], [0.95, 184.20422839732666]]','[[0.05, 0.001405698830277248], [0.5, 0.010415437144506887], [0.95, 0.055261268519198006]]',0.34765625,8,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(25,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604609341406818e+09,'[[0.05, 8.483602923280934], [0.5, 52.930398873329864], [0.95, 285.25058499643177]]','[[0.05, 0.0016967205846561866], [0.5, 0.010586079774665972], [0.95, 0.057050116999286346]]',0.421875,9,3.5599999999999996092e+00,'choice');
INSERT INTO "paceline_predictions" VALUES(26,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604609341406818e+09,'[[0.05, 4.505094326044279], [0.5, 56.51233341194818], [0.95, 385.9900416384171]]','[[0.05, 0.0013515282978132839], [0.5, 0.016953700023584456], [0.95, 0.11579701249152514]]',0.421875,9,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(27,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604609341406818e+09,'[[0.05, 12.828478264327728], [0.5, 39.528020171560875], [0.95, 153.03452929666824]]','[[0.05, 0.0025656956528655453], [0.5, 0.007905604034312175], [0.95, 0.030606905859333646]]',0.34765625,9,1.27006041187499985056e+01,'choice');
INSERT INTO "paceline_predictions" VALUES(28,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604609341406818e+09,'[[0.05, 5.0502857994211405], [0.5, 35.22579605192562], [0.95, 174.90257749654376]]','[[0.05, 0.0015150857398263423], [0.5, 0.010567738815577687], [0.95, 0.05247077324896313]]',0.421875,9,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(29,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604627437210081e+09,'[[0.05, 7.641452149085516], [0.5, 51.39533911491036], [0.95, 291.01708455041364]]','[[0.05, 0.001528290429817103], [0.5, 0.01027906782298207], [0.95, 0.058203416910082725]]',0.52734375,10,3.5599999999999996092e+00,'choice');
INSERT INTO "paceline_predictions" VALUES(30,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604627437210081e+09,'[[0.05, 6.1466257614803785], [0.5, 53.50589940909228], [0.95, 394.44898703303045]]','[[0.05, 0.0018439877284441137], [0.5, 0.016051769822727685], [0.95, 0.11833469610990914]]',0.52734375,10,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(31,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604627437210081e+09,'[[0.05, 15.89704828021537], [0.5, 31.938249543937623], [0.95, 102.94328394686438]]','[[0.05, 0.003179409656043074], [0.5, 0.006387649908787524], [0.95, 0.020588656789372876]]',0.55859375,10,1.57396947365624981785e+01,'choice');
INSERT INTO "paceline_predictions" VALUES(32,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604627437210081e+09,'[[0.05, 5.88523175578462], [0.5, 32.06068542783587], [0.95, 164.61388051566584]]','[[0.05, 0.001765569526735386], [0.5, 0.009618205628350762], [0.95, 0.049384164154699754]]',0.52734375,10,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(33,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604642011165622e+09,'[[0.05, 7.084328639996478], [0.5, 50.39258532455319], [0.95, 201.54246987031698]]','[[0.05, 0.0014168657279992956], [0.5, 0.010078517064910636], [0.95, 0.04030849397406339]]',0.63671875,11,3.5599999999999996092e+00,'choice');
INSERT INTO "paceline_predictions" VALUES(34,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604642011165622e+09,'[[0.05, 5.825302011152535], [0.5, 45.853540356941515], [0.95, 246.19365248976663]]','[[0.05, 0.0017475906033457605], [0.5, 0.013756062107082455], [0.95, 0.07385809574693]]',0.63671875,11,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(35,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604642011165622e+09,'[[0.05, 19.42504176653669], [0.5, 29.615925366642852], [0.95, 82.50993739399425]]','[[0.05, 0.003885008353307338], [0.5, 0.00592318507332857], [0.95, 0.016501987478798847]]',0.7734375,11,1.92346489470468711147e+01,'choice');
INSERT INTO "paceline_predictions" VALUES(36,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604642011165622e+09,'[[0.05, 6.167124977738609], [0.5, 27.957496500736728], [0.95, 133.92259577082444]]','[[0.05, 0.0018501374933215828], [0.5, 0.00838724895022102], [0.95, 0.04017677873124734]]',0.63671875,11,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(37,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604660590386392e+09,'[[0.05, 8.64047874775335], [0.5, 40.52560928603864], [0.95, 125.6265610208512]]','[[0.05, 0.00172809574955067], [0.5, 0.008105121857207727], [0.95, 0.025125312204170237]]',0.71875,12,3.5599999999999996092e+00,'choice');
INSERT INTO "paceline_predictions" VALUES(38,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604660590386392e+09,'[[0.05, 6.154430371046614], [0.5, 36.126610350878494], [0.95, 182.9461856217052]]','[[0.05, 0.0018463291113139846], [0.5, 0.010837983105263549], [0.95, 0.05488385568651157]]',0.71875,12,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(39,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604660590386392e+09,'[[0.05, 23.479712649957165], [0.5, 24.337673085432503], [0.95, 34.64152097774476]]','[[0.05, 0.0046959425299914325], [0.5, 0.0048675346170865], [0.95, 0.006928304195548952]]',0.9375,12,23.2538462891039,'choice');
INSERT INTO "paceline_predictions" VALUES(40,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604660590386392e+09,'[[0.05, 5.64260191567098], [0.5, 20.798757081341076], [0.95, 108.18692215670254]]','[[0.05, 0.0016927805747012942], [0.5, 0.006239627124402324], [0.95, 0.032456076647010765]]',0.71875,12,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(41,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604673799347878e+09,'[[0.05, 8.64047874775335], [0.5, 40.52560928603864], [0.95, 125.6265610208512]]','[[0.05, 0.00172809574955067], [0.5, 0.008105121857207727], [0.95, 0.025125312204170237]]',0.71875,13,3.5599999999999996092e+00,'choice');
INSERT INTO "paceline_predictions" VALUES(42,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604673799347878e+09,'[[0.05, 6.154430371046614], [0.5, 36.126610350878494], [0.95, 182.9461856217052]]','[[0.05, 0.0018463291113139846], [0.5, 0.010837983105263549], [0.95, 0.05488385568651157]]',0.71875,13,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(43,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604673799347878e+09,'[[0.05, 28.144446104038696], [0.5, 28.159724014894874], [0.95, 34.643056280638035]]','[[0.05, 0.005628889220807739], [0.5, 0.005631944802978974], [0.95, 0.006928611256127606]]',0.9375,13,2.78759232324694856681e+01,'choice');
INSERT INTO "paceline_predictions" VALUES(44,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604673799347878e+09,'[[0.05, 5.64260191567098], [0.5, 20.798757081341076], [0.95, 108.18692215670254]]','[[0.05, 0.0016927805747012942], [0.5, 0.006239627124402324], [0.95, 0.032456076647010765]]',0.71875,13,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(45,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604686430263514e+09,'[[0.05, 7.658983026273889], [0.5, 43.366382921801865], [0.95, 129.77639491141568]]','[[0.05, 0.0015317966052547777], [0.5, 0.008673276584360371], [0.95, 0.025955278982283135]]',0.71875,14,3.5599999999999996092e+00,'choice');
INSERT INTO "paceline_predictions" VALUES(46,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604686430263514e+09,'[[0.05, 6.751958961593265], [0.5, 39.0637294529993], [0.95, 222.9669636643669]]','[[0.05, 0.0020255876884779796], [0.5, 0.011719118835899791], [0.95, 0.06689008909931007]]',0.71875,14,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(47,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604686430263514e+09,'[[0.05, 33.51054900861497], [0.5, 33.52631242077547], [0.95, 34.723980609543574]]','[[0.05, 0.006702109801722994], [0.5, 0.006705262484155093], [0.95, 0.0069447961219087145]]',0.94140625,14,3.31913117173399072621e+01,'choice');
INSERT INTO "paceline_predictions" VALUES(48,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604686430263514e+09,'[[0.05, 7.615327554605154], [0.5, 25.756803058052398], [0.95, 114.70131959931332]]','[[0.05, 0.0022845982663815467], [0.5, 0.00772704091741572], [0.95, 0.034410395879794]]',0.71875,14,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(49,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604708386373526e+09,'[[0.05, 6.6243549100076695], [0.5, 36.909099040281426], [0.95, 153.27450352721073]]','[[0.05, 0.0013248709820015338], [0.5, 0.007381819808056285], [0.95, 0.03065490070544214]]',0.75,15,3.5599999999999996092e+00,'choice');
INSERT INTO "paceline_predictions" VALUES(50,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604708386373526e+09,'[[0.05, 5.719780197101697], [0.5, 34.61892336535672], [0.95, 202.70094858308]]','[[0.05, 0.0017159340591305092], [0.5, 0.010385677009607018], [0.95, 0.060810284574924]]',0.75,15,0.0,'choice');
INSERT INTO "paceline_predictions" VALUES(51,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":1,"strategy":"all_reduce"}',1.79598604708386373526e+09,'[[0.05, 24.30784814017987], [0.5, 24.30784814017987], [0.95, 24.30784814017987]]','[[0.05, 0.0048615696280359735], [0.5, 0.0048615696280359735], [0.95, 0.0048615696280359735]]',1.0,15,37.558,'choice');
INSERT INTO "paceline_predictions" VALUES(52,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":2,"strategy":"all_reduce"}',1.79598604708386373526e+09,'[[0.05, 5.863223952033034], [0.5, 20.788836805118144], [0.95, 84.83526575483718]]','[[0.05, 0.0017589671856099104], [0.5, 0.006236651041535444], [0.95, 0.025450579726451157]]',0.75,15,0.0,'choice');
CREATE TABLE paceline_probes (
	probe_id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	configuration TEXT NOT NULL, 
	purpose VARCHAR(32) NOT NULL, 
	trial_number INTEGER, 
	outcome VARCHAR(32) NOT NULL, 
	reason TEXT NOT NULL, 
	lease_owner VARCHAR(255), 
	lease_expires_at DOUBLE, 
	attempt INTEGER NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_paceline_probes PRIMARY KEY (probe_id), 
	CONSTRAINT fk_paceline_probes_study_id FOREIGN KEY(study_id) REFERENCES paceline_studies (study_id)
);
INSERT INTO "paceline_probes" VALUES(1,1,'{"batch_size":32,"learning_rate":0.03,"machine":"small","nodes":1,"strategy":"all_reduce"}','statistics',0,'paused','',NULL,NULL,2,1.79598604484867978097e+09);
INSERT INTO "paceline_probes" VALUES(2,1,'{"batch_size":32,"learning_rate":0.1,"machine":"small","nodes":1,"strategy":"all_reduce"}','statistics',1,'stopped','',NULL,NULL,13,1.79598604501787400241e+09);
CREATE TABLE paceline_recommendations (
	recommendation_id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	made_at DOUBLE NOT NULL, 
	recommendation JSON NOT NULL, 
	CONSTRAINT pk_paceline_recommendations PRIMARY KEY (recommendation_id), 
	CONSTRAINT fk_paceline_recommendations_study_id FOREIGN KEY(study_id) REFERENCES paceline_studies (study_id)
);
INSERT INTO "paceline_recommendations" VALUES(1,1,1.79598604724206447605e+09,'{"job_name": "job", "study_name": "job", "made_at": 1795986047.2420645, "goal": "accuracy >= 0.9, cheapest", "choice": {"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.1, "strategy": "all_reduce"}, "seconds": {"lower": 20.224255993396227, "median": 24.30784814017987, "upper": 29.215981116881714}, "dollars": {"lower": 0.004044851198679245, "median": 0.0048615696280359735, "upper": 0.005843196223376343}, "probability_of_reaching": 1.0, "measured_seconds": 24.30784814017987, "share_known": 1.0, "samples_known": 6752, "seconds_known": 37.558, "emulated": false}, "runner_up": {"configuration": {"nodes": 2, "machine": "small", "batch_size": 32, "learning_rate": 0.1, "strategy": "all_reduce"}, "seconds": {"lower": 5.863223952033034, "median": 20.788836805118144, "upper": 84.83526575483718}, "dollars": {"lower": 0.0017589671856099104, "median": 0.006236651041535444, "upper": 0.025450579726451157}, "probability_of_reaching": 0.75, "measured_seconds": null, "share_known": 0.0, "samples_known": 0, "seconds_known": 0.0, "emulated": false}, "baseline": {"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.03, "strategy": "all_reduce"}, "seconds": {"lower": 6.6243549100076695, "median": 36.909099040281426, "upper": 153.27450352721073}, "dollars": {"lower": 0.0013248709820015338, "median": 0.007381819808056285, "upper": 0.03065490070544214}, "probability_of_reaching": 0.75, "measured_seconds": null, "share_known": 0.09645318072149982, "samples_known": 640, "seconds_known": 3.5599999999999996, "emulated": false}, "verified": {"reached": true, "training_seconds": 24.30784814017987, "dollars": 0.0048615696280359735, "value": 0.9593273660056518, "predicted": {"lower": 6.0274498357777935, "median": 24.50396753383397, "upper": 125.52262853521678}, "share_known": 0.24556575166903394, "last_value": 0.9593273660056518, "score_seconds": 29.369999999999997}, "provisional": false, "evidence": ["2 trainings started and 0 timing probes made, in 15 slices.", "Its own run was followed for 6752 samples, 37.6 training seconds.", "With 90% probability nothing in this space is more than 2.9 times as cheap."], "warnings": ["Everything was replayed from the recording grid: there is no trained model, and nothing here to launch. Train this with what the recording was made with.", "A single run reached the target: with another order of the data, its time may differ by a tenth or more."], "stopped_because": "a run reached the target: nodes=1 machine=small batch_size=32 learning_rate=0.1 strategy=all_reduce", "tuning": {"seconds": 45.11800000000001, "dollars": 0.0090236, "num_probes": 2, "seconds_by_purpose": {"statistics": 10.229999999999999, "training": 34.888}, "seconds_by_part": {"training": 41.118, "scoring": 0.0, "startup": 4.0, "other": 0.0}, "elapsed_seconds": null}, "checkpoint": null, "command": "", "own_command": "", "training_samples": null, "training_epochs": null, "strategies": [], "turning_points": [], "ended_by_budget": false, "axes_without_effect": [], "startup_seconds": null, "confirmation": null, "imported": null, "schema_version": "1.7"}');
CREATE TABLE paceline_slices (
	probe_id INTEGER NOT NULL, 
	slice_index INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	finished_at DOUBLE NOT NULL, 
	outcome VARCHAR(32) NOT NULL, 
	training_seconds DOUBLE NOT NULL, 
	step BIGINT NOT NULL, 
	samples BIGINT NOT NULL, 
	charged_seconds DOUBLE NOT NULL, 
	charged_dollars DOUBLE NOT NULL, 
	details JSON NOT NULL, 
	CONSTRAINT pk_paceline_slices PRIMARY KEY (probe_id, slice_index), 
	CONSTRAINT fk_paceline_slices_probe_id FOREIGN KEY(probe_id) REFERENCES paceline_probes (probe_id)
);
INSERT INTO "paceline_slices" VALUES(1,0,1,1.7959860448606884479e+09,'paused',2.0,11,360,4.0,7.99999999999999929917e-04,'{"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.03, "strategy": "all_reduce"}, "purpose": "statistics", "ranks": [{"rank": 0, "batch_size": 32, "compute": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 11}, "sync": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 11}, "input": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 11}, "step": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 11}, "count": 1}], "noise": [], "scoring_seconds": 0.0, "startup_seconds": 2.0, "repeated_seconds": 0.0, "restart_seconds": null, "peak_bytes": 0, "parameter_bytes": 0, "oversubscribed": false, "error": null, "checkpoint": "/tmp/storage/old/work/paceline-out/job/probes/job-6b0c927a/0001/checkpoints/replayed.json", "lost_ranks": [], "staleness_steps": null, "bytes_per_step": null, "emulated": false, "waiting": "", "shared_seconds": 0.0, "remarks": [], "reports_steps": true, "resume_refused": false, "infrastructure_fault": false, "job_fault": false, "counts_startup": false}');
INSERT INTO "paceline_slices" VALUES(2,0,1,1.79598604503914785384e+09,'paused',2.0,11,360,4.0,7.99999999999999929917e-04,'{"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.1, "strategy": "all_reduce"}, "purpose": "statistics", "ranks": [{"rank": 0, "batch_size": 32, "compute": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 11}, "sync": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 11}, "input": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 11}, "step": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 11}, "count": 1}], "noise": [], "scoring_seconds": 0.0, "startup_seconds": 2.0, "repeated_seconds": 0.0, "restart_seconds": null, "peak_bytes": 0, "parameter_bytes": 0, "oversubscribed": false, "error": null, "checkpoint": "/tmp/storage/old/work/paceline-out/job/probes/job-6b0c927a/0002/checkpoints/replayed.json", "lost_ranks": [], "staleness_steps": null, "bytes_per_step": null, "emulated": false, "waiting": "", "shared_seconds": 0.0, "remarks": [], "reports_steps": true, "resume_refused": false, "infrastructure_fault": false, "job_fault": false, "counts_startup": false}');
INSERT INTO "paceline_slices" VALUES(1,1,2,1.79598604511240267757e+09,'paused',3.5599999999999996092e+00,20,640,1.5599999999999996092e+00,3.11999999999999885931e-04,'{"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.03, "strategy": "all_reduce"}, "purpose": "statistics", "ranks": [{"rank": 0, "batch_size": 32, "compute": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 8}, "sync": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 8}, "input": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 8}, "step": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 8}, "count": 1}], "noise": [], "scoring_seconds": 0.0, "startup_seconds": 0.0, "repeated_seconds": 0.0, "restart_seconds": null, "peak_bytes": 0, "parameter_bytes": 0, "oversubscribed": false, "error": null, "checkpoint": "/tmp/storage/old/work/paceline-out/job/probes/job-6b0c927a/0001/checkpoints/replayed.json", "lost_ranks": [], "staleness_steps": null, "bytes_per_step": null, "emulated": false, "waiting": "", "shared_seconds": 0.0, "remarks": [], "reports_steps": true, "resume_refused": false, "infrastructure_fault": false, "job_fault": false, "counts_startup": false}');
INSERT INTO "paceline_slices" VALUES(2,1,2,1.79598604528788566587e+09,'paused',2.67,15,480,6.69999999999999928945e-01,1.33999999999999977419e-04,'{"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.1, "strategy": "all_reduce"}, "purpose": "statistics", "ranks": [{"rank": 0, "batch_size": 32, "compute": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 3}, "sync": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 3}, "input": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 3}, "step": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 3}, "count": 1}], "noise": [], "scoring_seconds": 0.0, "startup_seconds": 0.0, "repeated_seconds": 0.0, "restart_seconds": null, "peak_bytes": 0, "parameter_bytes": 0, "oversubscribed": false, "error": null, "checkpoint": "/tmp/storage/old/work/paceline-out/job/probes/job-6b0c927a/0002/checkpoints/replayed.json", "lost_ranks": [], "staleness_steps": null, "bytes_per_step": null, "emulated": false, "waiting": "", "shared_seconds": 0.0, "remarks": [], "reports_steps": true, "resume_refused": false, "infrastructure_fault": false, "job_fault": false, "counts_startup": false}');
INSERT INTO "paceline_slices" VALUES(2,2,3,1.79598604543382883071e+09,'paused',4.20449999999999945998e+00,23,756,1.53449999999999953104e+00,3.06899999999999870386e-04,'{"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.1, "strategy": "all_reduce"}, "purpose": "training", "ranks": [{"rank": 0, "batch_size": 32, "compute": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 8}, "sync": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 8}, "input": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 8}, "step": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 8}, "count": 1}], "noise": [], "scoring_seconds": 0.0, "startup_seconds": 0.0, "repeated_seconds": 0.0, "restart_seconds": null, "peak_bytes": 0, "parameter_bytes": 0, "oversubscribed": false, "error": null, "checkpoint": "/tmp/storage/old/work/paceline-out/job/probes/job-6b0c927a/0002/checkpoints/replayed.json", "lost_ranks": [], "staleness_steps": null, "bytes_per_step": null, "emulated": false, "waiting": "", "shared_seconds": 0.0, "remarks": [], "reports_steps": true, "resume_refused": false, "infrastructure_fault": false, "job_fault": false, "counts_startup": false}');
INSERT INTO "paceline_slices" VALUES(2,3,4,1.79598604560050940513e+09,'paused',5.9691749999999990095e+00,33,1073,1.76467499999999954951e+00,3.52934999999999859075e-04,'{"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.1, "strategy": "all_reduce"}, "purpose": "training", "ranks": [{"rank": 0, "batch_size": 32, "compute": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 9}, "sync": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 9}, "input": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 9}, "step": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 9}, "count": 1}], "noise": [], "scoring_seconds": 0.0, "startup_seconds": 0.0, "repeated_seconds": 0.0, "restart_seconds": null, "peak_bytes": 0, "parameter_bytes": 0, "oversubscribed": false, "error": null, "checkpoint": "/tmp/storage/old/work/paceline-out/job/probes/job-6b0c927a/0002/checkpoints/replayed.json", "lost_ranks": [], "staleness_steps": null, "bytes_per_step": null, "emulated": false, "waiting": "", "shared_seconds": 0.0, "remarks": [], "reports_steps": true, "resume_refused": false, "infrastructure_fault": false, "job_fault": false, "counts_startup": false}');
INSERT INTO "paceline_slices" VALUES(2,4,5,1.79598604574838829036e+09,'paused',7.7599274999999989788e+00,43,1395,1.7907525,3.58150499999999958472e-04,'{"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.1, "strategy": "all_reduce"}, "purpose": "training", "ranks": [{"rank": 0, "batch_size": 32, "compute": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 10}, "sync": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 10}, "input": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 10}, "step": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 10}, "count": 1}], "noise": [], "scoring_seconds": 0.0, "startup_seconds": 0.0, "repeated_seconds": 0.0, "restart_seconds": null, "peak_bytes": 0, "parameter_bytes": 0, "oversubscribed": false, "error": null, "checkpoint": "/tmp/storage/old/work/paceline-out/job/probes/job-6b0c927a/0002/checkpoints/replayed.json", "lost_ranks": [], "staleness_steps": null, "bytes_per_step": null, "emulated": false, "waiting": "", "shared_seconds": 0.0, "remarks": [], "reports_steps": true, "resume_refused": false, "infrastructure_fault": false, "job_fault": false, "counts_startup": false}');
INSERT INTO "paceline_slices" VALUES(2,5,6,1.79598604587052226065e+09,'paused',1.0057916624999998945e+01,56,1808,2.297989125,4.59597824999999967233e-04,'{"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.1, "strategy": "all_reduce"}, "purpose": "training", "ranks": [{"rank": 0, "batch_size": 32, "compute": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 12}, "sync": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 12}, "input": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 12}, "step": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 12}, "count": 1}], "noise": [], "scoring_seconds": 0.0, "startup_seconds": 0.0, "repeated_seconds": 0.0, "restart_seconds": null, "peak_bytes": 0, "parameter_bytes": 0, "oversubscribed": false, "error": null, "checkpoint": "/tmp/storage/old/work/paceline-out/job/probes/job-6b0c927a/0002/checkpoints/replayed.json", "lost_ranks": [], "staleness_steps": null, "bytes_per_step": null, "emulated": false, "waiting": "", "shared_seconds": 0.0, "remarks": [], "reports_steps": true, "resume_refused": false, "infrastructure_fault": false, "job_fault": false, "counts_startup": false}');
INSERT INTO "paceline_slices" VALUES(2,6,7,1.79598604601780986785e+09,'paused',1.27006041187499985056e+01,71,2283,2.64268749374999956103e+00,5.28537498749999889134e-04,'{"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.1, "strategy": "all_reduce"}, "purpose": "training", "ranks": [{"rank": 0, "batch_size": 32, "compute": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 14}, "sync": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 14}, "input": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 14}, "step": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 14}, "count": 1}], "noise": [], "scoring_seconds": 0.0, "startup_seconds": 0.0, "repeated_seconds": 0.0, "restart_seconds": null, "peak_bytes": 0, "parameter_bytes": 0, "oversubscribed": false, "error": null, "checkpoint": "/tmp/storage/old/work/paceline-out/job/probes/job-6b0c927a/0002/checkpoints/replayed.json", "lost_ranks": [], "staleness_steps": null, "bytes_per_step": null, "emulated": false, "waiting": "", "shared_seconds": 0.0, "remarks": [], "reports_steps": true, "resume_refused": false, "infrastructure_fault": false, "job_fault": false, "counts_startup": false}');
INSERT INTO "paceline_slices" VALUES(2,7,8,1.79598604616978979112e+09,'paused',1.57396947365624981785e+01,88,2830,3.03909061781249967282e+00,6.07818123562499845399e-04,'{"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.1, "strategy": "all_reduce"}, "purpose": "training", "ranks": [{"rank": 0, "batch_size": 32, "compute": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 17}, "sync": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 17}, "input": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 17}, "step": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 17}, "count": 1}], "noise": [], "scoring_seconds": 0.0, "startup_seconds": 0.0, "repeated_seconds": 0.0, "restart_seconds": null, "peak_bytes": 0, "parameter_bytes": 0, "oversubscribed": false, "error": null, "checkpoint": "/tmp/storage/old/work/paceline-out/job/probes/job-6b0c927a/0002/checkpoints/replayed.json", "lost_ranks": [], "staleness_steps": null, "bytes_per_step": null, "emulated": false, "waiting": "", "shared_seconds": 0.0, "remarks": [], "reports_steps": true, "resume_refused": false, "infrastructure_fault": false, "job_fault": false, "counts_startup": false}');
INSERT INTO "paceline_slices" VALUES(2,8,9,1.79598604633385848993e+09,'paused',1.92346489470468711147e+01,108,3458,3.4949542104843729362e+00,6.98990842096874572843e-04,'{"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.1, "strategy": "all_reduce"}, "purpose": "training", "ranks": [{"rank": 0, "batch_size": 32, "compute": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 19}, "sync": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 19}, "input": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 19}, "step": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 19}, "count": 1}], "noise": [], "scoring_seconds": 0.0, "startup_seconds": 0.0, "repeated_seconds": 0.0, "restart_seconds": null, "peak_bytes": 0, "parameter_bytes": 0, "oversubscribed": false, "error": null, "checkpoint": "/tmp/storage/old/work/paceline-out/job/probes/job-6b0c927a/0002/checkpoints/replayed.json", "lost_ranks": [], "staleness_steps": null, "bytes_per_step": null, "emulated": false, "waiting": "", "shared_seconds": 0.0, "remarks": [], "reports_steps": true, "resume_refused": false, "infrastructure_fault": false, "job_fault": false, "counts_startup": false}');
INSERT INTO "paceline_slices" VALUES(2,9,10,1.79598604650719952582e+09,'paused',23.2538462891039,130,4180,4.01919734205703,8.03839468411405894295e-04,'{"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.1, "strategy": "all_reduce"}, "purpose": "training", "ranks": [{"rank": 0, "batch_size": 32, "compute": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 22}, "sync": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 22}, "input": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 22}, "step": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 22}, "count": 1}], "noise": [], "scoring_seconds": 0.0, "startup_seconds": 0.0, "repeated_seconds": 0.0, "restart_seconds": null, "peak_bytes": 0, "parameter_bytes": 0, "oversubscribed": false, "error": null, "checkpoint": "/tmp/storage/old/work/paceline-out/job/probes/job-6b0c927a/0002/checkpoints/replayed.json", "lost_ranks": [], "staleness_steps": null, "bytes_per_step": null, "emulated": false, "waiting": "", "shared_seconds": 0.0, "remarks": [], "reports_steps": true, "resume_refused": false, "infrastructure_fault": false, "job_fault": false, "counts_startup": false}');
INSERT INTO "paceline_slices" VALUES(2,10,11,1.79598604665776252742e+09,'paused',2.78759232324694856681e+01,156,5011,4.62207694336558461145e+00,9.24415388673116848912e-04,'{"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.1, "strategy": "all_reduce"}, "purpose": "training", "ranks": [{"rank": 0, "batch_size": 32, "compute": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 25}, "sync": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 25}, "input": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 25}, "step": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 25}, "count": 1}], "noise": [], "scoring_seconds": 0.0, "startup_seconds": 0.0, "repeated_seconds": 0.0, "restart_seconds": null, "peak_bytes": 0, "parameter_bytes": 0, "oversubscribed": false, "error": null, "checkpoint": "/tmp/storage/old/work/paceline-out/job/probes/job-6b0c927a/0002/checkpoints/replayed.json", "lost_ranks": [], "staleness_steps": null, "bytes_per_step": null, "emulated": false, "waiting": "", "shared_seconds": 0.0, "remarks": [], "reports_steps": true, "resume_refused": false, "infrastructure_fault": false, "job_fault": false, "counts_startup": false}');
INSERT INTO "paceline_slices" VALUES(2,11,12,1.79598604678307127951e+09,'paused',3.31913117173399072621e+01,186,5967,5.31538848487042159263e+00,1.06307769697408429493e-03,'{"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.1, "strategy": "all_reduce"}, "purpose": "training", "ranks": [{"rank": 0, "batch_size": 32, "compute": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 29}, "sync": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 29}, "input": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 29}, "step": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 29}, "count": 1}], "noise": [], "scoring_seconds": 0.0, "startup_seconds": 0.0, "repeated_seconds": 0.0, "restart_seconds": null, "peak_bytes": 0, "parameter_bytes": 0, "oversubscribed": false, "error": null, "checkpoint": "/tmp/storage/old/work/paceline-out/job/probes/job-6b0c927a/0002/checkpoints/replayed.json", "lost_ranks": [], "staleness_steps": null, "bytes_per_step": null, "emulated": false, "waiting": "", "shared_seconds": 0.0, "remarks": [], "reports_steps": true, "resume_refused": false, "infrastructure_fault": false, "job_fault": false, "counts_startup": false}');
INSERT INTO "paceline_slices" VALUES(2,12,13,1.79598604693120813364e+09,'stopped',37.558,211,6752,4.36668828266009256822e+00,8.73337656532018383713e-04,'{"configuration": {"nodes": 1, "machine": "small", "batch_size": 32, "learning_rate": 0.1, "strategy": "all_reduce"}, "purpose": "training", "ranks": [{"rank": 0, "batch_size": 32, "compute": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 24}, "sync": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 24}, "input": {"median": 0.0, "p10": 0.0, "p90": 0.0, "mean": 0.0, "std": 0.0, "count": 24}, "step": {"median": 0.178, "p10": 0.178, "p90": 0.178, "mean": 0.178, "std": 0.0, "count": 24}, "count": 1}], "noise": [], "scoring_seconds": 0.0, "startup_seconds": 0.0, "repeated_seconds": 0.0, "restart_seconds": null, "peak_bytes": 0, "parameter_bytes": 0, "oversubscribed": false, "error": null, "checkpoint": "/tmp/storage/old/work/paceline-out/job/probes/job-6b0c927a/0002/checkpoints/replayed.json", "lost_ranks": [], "staleness_steps": null, "bytes_per_step": null, "emulated": false, "waiting": "", "shared_seconds": 0.0, "remarks": [], "reports_steps": true, "resume_refused": false, "infrastructure_fault": false, "job_fault": false, "counts_startup": false}');
CREATE TABLE paceline_studies (
	study_id INTEGER NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	job_name VARCHAR(255) NOT NULL, 
	fingerprint VARCHAR(64) NOT NULL, 
	job JSON NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_paceline_studies PRIMARY KEY (study_id), 
	CONSTRAINT uq_paceline_studies_name UNIQUE (name)
);
INSERT INTO "paceline_studies" VALUES(1,'job','job','6f82c183d09a74e0','{"name": "job", "seed": 0, "workload": null, "cluster": {"nodes": [1], "devices_per_node": 1, "dollars_per_node_hour": 0.0, "launcher": "local", "torchrun": null, "slurm": {"partition": null, "account": null, "time": null, "gres": null, "cpus_per_node": null, "extra": {}}, "ray": {"address": "http://127.0.0.1:8265", "cpus_per_node": null, "gpus_per_node": 0, "resources": {}, "patience": 600.0}, "python": null, "threads_per_rank": 1, "machine": null, "nodes_at_hand": null, "capacity": null, "emulate": {"delay": []}}, "goal": {"metric": "accuracy", "target": 0.9, "direction": null, "minimize": "dollars", "trainings": 1, "deadline": null, "max_dollars": null, "hold": 2}, "space": null, "baseline": "{\"batch_size\":32,\"learning_rate\":0.03,\"machine\":\"small\",\"nodes\":1,\"strategy\":\"all_reduce\"}", "probe": {"kind": "recorded", "recording": "/tmp/storage/old/work/runs.jsonl.gz", "timing_steps": 30, "slice_seconds": null, "first_score_samples": null, "score_growth": 1.15, "max_scoring": 0.25, "max_batch_size_per_rank": null, "hang_timeout": null}, "budget": {"time": null, "dollars": null, "node_hours": null, "probes": 2}}',1.79598604275703382492e+09);
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'job');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MINIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_intermediate_values" VALUES(1,1,640,3.02139050707804779349e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(2,2,480,3.05983062239109093738e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(3,2,576,0.340988847375152,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(4,2,768,4.05640652829031389536e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(5,2,960,4.63751326831171928333e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(6,2,1216,0.532191201650202,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(7,2,1568,6.11732050682543215813e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(8,2,1984,6.87723671502720512727e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(9,2,2528,7.63956999766201905188e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(10,2,3232,8.33889037244037734097e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(11,2,4128,8.91182067325838489502e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(12,2,5280,0.933166976981749,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(13,2,6752,9.59327366005651827052e-01,'FINITE');
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'nodes',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(2,1,'machine',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["small"]}}');
INSERT INTO "trial_params" VALUES(3,1,'batch_size',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [32]}}');
INSERT INTO "trial_params" VALUES(4,1,'learning_rate',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.03, 0.1]}}');
INSERT INTO "trial_params" VALUES(5,1,'strategy',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["all_reduce"]}}');
INSERT INTO "trial_params" VALUES(6,2,'nodes',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(7,2,'machine',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["small"]}}');
INSERT INTO "trial_params" VALUES(8,2,'batch_size',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [32]}}');
INSERT INTO "trial_params" VALUES(9,2,'learning_rate',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.03, 0.1]}}');
INSERT INTO "trial_params" VALUES(10,2,'strategy',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["all_reduce"]}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'purpose','"statistics"');
INSERT INTO "trial_user_attributes" VALUES(2,2,'purpose','"statistics"');
INSERT INTO "trial_user_attributes" VALUES(3,2,'outcome','"stopped"');
INSERT INTO "trial_user_attributes" VALUES(4,2,'charged_seconds','39.558');
INSERT INTO "trial_user_attributes" VALUES(5,2,'step_seconds','0.178');
INSERT INTO "trial_user_attributes" VALUES(6,1,'outcome','"stopped"');
INSERT INTO "trial_user_attributes" VALUES(7,1,'charged_seconds','5.56');
INSERT INTO "trial_user_attributes" VALUES(8,1,'step_seconds','0.178');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,2,0,2.43078481401798711662e+01,'FINITE');
INSERT INTO "trial_values" VALUES(2,1,0,3.02139050707804779349e-01,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'PRUNED','2026-11-29 21:00:44.747368','2026-11-29 21:00:47.200528');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-29 21:00:44.931565','2026-11-29 21:00:47.013088');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE INDEX ix_paceline_studies_fingerprint ON paceline_studies (fingerprint);
CREATE INDEX ix_paceline_probes_study_id ON paceline_probes (study_id);
CREATE INDEX ix_paceline_curve_points_study_id ON paceline_curve_points (study_id);
CREATE INDEX ix_paceline_predictions_study_id ON paceline_predictions (study_id);
CREATE INDEX ix_paceline_fits_study_id ON paceline_fits (study_id);
CREATE INDEX ix_paceline_recommendations_study_id ON paceline_recommendations (study_id);
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
