/** A page to come. */
export function ImportPage({ params: _ }: { params: URLSearchParams }) {
  return (
    <>
      <h1>Import</h1>
      <p class="quiet">Importing is not here yet.</p>
    </>
  );
}
