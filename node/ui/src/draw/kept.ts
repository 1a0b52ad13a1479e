/** One value that outlives a reload and is too large for the storage of texts: the picture to begin from. */

const NAME = "atelier";
const STORE = "form";
const KEY = "source";

function opened(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("no storage"));
  });
}

async function within(mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest): Promise<unknown> {
  const database = await opened();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const request = act(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error ?? new Error("not kept"));
    });
  } finally {
    database.close();
  }
}

/** A full or forbidden storage costs the memory of it, not the page. */
export async function keep(value: unknown): Promise<void> {
  await within("readwrite", (store) => (value === null ? store.delete(KEY) : store.put(value, KEY))).catch(() => {});
}

/** What was kept, by whatever version of the page; undefined: nothing. */
export function kept(): Promise<unknown> {
  return within("readonly", (store) => store.get(KEY)).catch(() => undefined);
}
