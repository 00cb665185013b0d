// What a user does with the JavaScript client: node client.mjs URL FOLDER. Prints what came of it as JSON.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import openeo from '@openeo/js-client';

process.on('uncaughtException', (error) => {
  console.error(error.stack);
  process.exit(1);
});
const [url, folder] = process.argv.slice(2);
const told = {};
const text = async (stream) => {
  const parts = [];
  for await (const part of stream) parts.push(Buffer.from(part));
  return Buffer.concat(parts).toString();
};
const ids = (list) => list.map((each) => each.id);
const refused = async (promise) => promise.then(() => 'not refused', (error) => error.code ?? String(error));

const connection = await openeo.OpenEO.connect(url);
told.version = connection.capabilities().apiVersion();
told.anonymous = await refused(connection.describeAccount());
const basic = (await connection.listAuthProviders()).find((each) => each.getType() === 'basic');
told.wrong = await refused(basic.login('demo', 'not the password'));
await basic.login('demo', 'demo');
told.name = (await connection.describeAccount()).name;

told.collections = ids((await connection.listCollections()).collections);
const collection = await connection.describeCollection('s2_l2a_sample');
told.dimensions = Object.keys(collection['cube:dimensions']);
told.processes = (await connection.listProcesses()).processes.length;
told.formats = Object.keys((await connection.listFileTypes()).getOutputTypes());
told.serviceTypes = Object.keys(await connection.listServiceTypes());
told.parameters = Object.keys(await connection.listProcessingParameters());

const builder = await connection.buildProcess();
const sum = builder.add(1, 2);
sum.result = true;
const process_ = { process_graph: builder.toJSON().process_graph ?? builder.toJSON() };
told.valid = await connection.validateProcess(process_);
told.faults = ids(await connection.validateProcess({ process_graph: {} })).length;
const result = await connection.computeResult(process_);
told.result = JSON.parse(await text(result.data));

const job = await connection.createJob(process_, 'From JavaScript');
await job.updateJob({ title: 'Changed', description: 'By the client' });
told.title = job.title;
told.size = (await job.estimateJob()).size;
await job.startJob();
const deadline = Date.now() + 120000;
while (['queued', 'running', 'created'].includes((await job.describeJob()).status) && Date.now() < deadline) {
  await new Promise((resolve) => setTimeout(resolve, 200));
}
told.status = job.status;
told.assets = (await job.listResults()).map((asset) => asset.href.split('/').pop());
const files = await job.downloadResults(folder);
told.downloaded = JSON.parse(readFileSync(files.find((each) => String(each).endsWith('.json'))));
told.logs = (await job.debugJob().nextLogs()).length > 0;
told.listed = ids(await connection.listJobs()).includes(job.id);
await job.deleteJob();
told.deleted = await refused(connection.getJob(job.id));

const stored = await connection.setUserProcess('js_sum', { ...process_, summary: 'A sum' });
told.summary = (await stored.describeUserProcess()).summary;
told.stored = ids(await connection.listUserProcesses());
await stored.replaceUserProcess({ ...process_, summary: 'Another' });
told.replaced = (await connection.getUserProcess('js_sum')).summary;
await stored.deleteUserProcess();
told.storedAfter = ids(await connection.listUserProcesses());

const service = await connection.createService(process_, 'XYZ', 'From JavaScript');
told.service = (await service.describeService()).type;
await service.updateService({ title: 'Changed' });
told.serviceTitle = service.title;
told.services = ids(await connection.listServices()).includes(service.id);
await service.deleteService();
told.serviceAfter = await refused(connection.getService(service.id));

const source = join(folder, 'source.txt');
writeFileSync(source, 'from JavaScript');
const file = await connection.uploadFile(source, 'js/ä b.txt');
told.files = (await connection.listFiles()).map((each) => each.path);
await file.downloadFile(join(folder, 'copy.txt'));
told.copy = readFileSync(join(folder, 'copy.txt'), 'utf8');
await file.deleteFile();
told.filesAfter = (await connection.listFiles()).map((each) => each.path);

console.log(JSON.stringify(told));
